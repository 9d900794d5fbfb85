package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rounds are the rounds of a confirmer. Their answers come from the test.
type rounds struct {
	confirmer
	started int
	answer  chan uint64 // 0: an error
}

var errNoIndex = errors.New("no index")

func newRounds(ctx context.Context) *rounds {
	r := &rounds{answer: make(chan uint64)}
	r.confirmer = confirmer{s: &Store{}, ctx: ctx, round: func() (uint64, error) {
		r.started++
		if index := <-r.answer; index > 0 {
			return index, nil
		}
		return 0, errNoIndex
	}}
	return r
}

// end answers the last round and waits for it.
func (r *rounds) end() {
	close(r.answer)
	r.s.wg.Wait()
}

// call is one caller of a confirmer.
type call struct {
	done  bool
	index uint64
	err   error
}

func (r *rounds) call(ctx context.Context) *call {
	c := &call{}
	go func() {
		c.index, c.err = r.wait(ctx)
		c.done = true
	}()
	synctest.Wait()
	return c
}

// A call during a round waits for the next one: the quorum, or the leader, may have
// answered the current one before the call.
func TestConfirmationStartsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRounds(t.Context())
		first := r.call(t.Context())
		var late []*call
		for range 10 {
			late = append(late, r.call(t.Context()))
		}
		if r.started != 1 {
			t.Fatalf("%d rounds at a time", r.started)
		}
		r.answer <- 7
		synctest.Wait()
		if !first.done || first.index != 7 || first.err != nil {
			t.Errorf("the first call: %+v", first)
		}
		for i, c := range late {
			if c.done {
				t.Errorf("call %d was answered by a round that started before it", i)
			}
		}
		r.answer <- 0
		synctest.Wait()
		for i, c := range late {
			if !c.done || !errors.Is(c.err, errNoIndex) {
				t.Errorf("call %d: %+v", i, c)
			}
		}
		if r.started != 2 {
			t.Errorf("%d rounds for eleven calls, want 2", r.started)
		}
		again := r.call(t.Context())
		r.answer <- 9
		synctest.Wait()
		if again.index != 9 || r.started != 3 {
			t.Errorf("a later call: %+v, %d rounds", again, r.started)
		}
	})
}

// The calls of a leadership, or of a store, end with it, and later calls start no round.
func TestConfirmationEndsWithTheLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		r := newRounds(ctx)
		running, waiting := r.call(t.Context()), r.call(t.Context())
		stop()
		for _, c := range []*call{running, waiting, r.call(t.Context())} {
			if !c.done || !errors.Is(c.err, ErrNotLeader) {
				t.Errorf("%+v, want ErrNotLeader", c)
			}
		}
		r.end()
		started := r.started
		if late := r.call(t.Context()); !errors.Is(late.err, ErrNotLeader) || r.started != started {
			t.Errorf("%+v and %d rounds, want ErrNotLeader and none", late, r.started-started)
		}
	})
}

// A caller that leaves takes no round from the others.
func TestConfirmationEndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRounds(t.Context())
		defer r.end()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gone := []*call{r.call(ctx), r.call(ctx)}
		stays := r.call(t.Context())
		after(2 * time.Second)
		synctest.Wait()
		for _, c := range gone {
			if !c.done || !errors.Is(c.err, context.DeadlineExceeded) {
				t.Errorf("%+v, want the caller's deadline", c)
			}
		}
		r.answer <- 7
		r.answer <- 8
		synctest.Wait()
		if stays.index != 8 || r.started != 2 {
			t.Errorf("the call that stays: %+v, %d rounds", stays, r.started)
		}
	})
}

// A request to a leader that hangs does not delay one to its successor.
func TestIndexOfTheNextLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &Store{ctx: ctx, cfg: Config{Peers: hangingPeer{}}}
		hung := make(chan error)
		go func() {
			_, err := s.askLeader(t.Context(), Target{ID: "old"})
			hung <- err
		}()
		synctest.Wait()
		soon, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if index, err := s.askLeader(soon, Target{ID: "new"}); index != 3 || err != nil {
			t.Errorf("got %d, %v", index, err)
		}
		cancel()
		if err := <-hung; !errors.Is(err, ErrNotLeader) {
			t.Errorf("the old leader's: %v", err)
		}
		s.wg.Wait()
	})
}

type hangingPeer struct{ Peers }

func (hangingPeer) ReadIndex(ctx context.Context, leader Target) (uint64, error) {
	if leader.ID == "new" {
		return 3, nil
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

func BenchmarkConfirm(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			b.ReportAllocs()
			s := &Store{}
			c := &confirmer{s: s, ctx: b.Context(), round: func() (uint64, error) { return 1, nil }}
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for range b.N / callers {
						if _, err := c.wait(b.Context()); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
			s.wg.Wait()
		})
	}
}
