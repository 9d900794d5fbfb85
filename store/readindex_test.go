package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// indexRequests are a leader's answers, which come from the test.
type indexRequests struct {
	sent     int
	canceled int
	answer   chan uint64 // 0: an error
}

var errNoIndex = errors.New("no index")

func (r *indexRequests) ask(ctx context.Context, _ Target) (uint64, error) {
	r.sent++
	select {
	case index := <-r.answer:
		if index == 0 {
			return 0, errNoIndex
		}
		return index, nil
	case <-ctx.Done():
		r.canceled++
		return 0, ctx.Err()
	}
}

func newIndexRequests(ctx context.Context) (*indexRequests, *indexAsker) {
	r := &indexRequests{answer: make(chan uint64)}
	return r, &indexAsker{ctx: ctx, ask: r.ask}
}

// indexCall is one caller.
type indexCall struct {
	done  bool
	index uint64
	err   error
}

func (a *indexAsker) call(ctx context.Context) *indexCall {
	c := &indexCall{}
	go func() {
		c.index, c.err = a.wait(ctx)
		c.done = true
	}()
	synctest.Wait()
	return c
}

// A call while a request is under way waits for the next one: the leader may have
// confirmed the index before the call.
func TestIndexRequestIsSentAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a := newIndexRequests(t.Context())
		first := a.call(t.Context())
		var late []*indexCall
		for range 10 {
			late = append(late, a.call(t.Context()))
		}
		if r.sent != 1 {
			t.Fatalf("%d requests at a time", r.sent)
		}
		r.answer <- 7
		synctest.Wait()
		if !first.done || first.index != 7 || first.err != nil {
			t.Errorf("the first call: %+v", first)
		}
		for i, c := range late {
			if c.done {
				t.Errorf("call %d has the answer to a request that was sent before it", i)
			}
		}
		r.answer <- 0
		synctest.Wait()
		for i, c := range late {
			if !c.done || !errors.Is(c.err, errNoIndex) {
				t.Errorf("call %d: %+v", i, c)
			}
		}
		if r.sent != 2 {
			t.Errorf("%d requests for eleven calls, want 2", r.sent)
		}
		again := a.call(t.Context())
		r.answer <- 9
		synctest.Wait()
		if again.index != 9 || r.sent != 3 {
			t.Errorf("a later call: %+v, %d requests", again, r.sent)
		}
	})
}

// A request ends with the last of its callers, not with the first.
func TestIndexRequestEndsWithItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a := newIndexRequests(t.Context())
		one, stopOne := context.WithCancel(t.Context())
		first := a.call(one)
		two, stopTwo := context.WithCancel(t.Context())
		waiting, other := a.call(one), a.call(two)
		stopOne()
		synctest.Wait()
		for _, c := range []*indexCall{first, waiting} {
			if !c.done || !errors.Is(c.err, context.Canceled) {
				t.Errorf("%+v, want the caller's end", c)
			}
		}
		if r.canceled != 1 || r.sent != 2 || other.done {
			t.Errorf("%d requests, %d canceled; the caller that stays: %+v", r.sent, r.canceled, other)
		}
		last := a.call(one)
		if !last.done || r.sent != 2 {
			t.Errorf("a call that has ended: %+v, %d requests", last, r.sent)
		}
		stopTwo()
		synctest.Wait()
		if r.canceled != 2 || r.sent != 2 || a.asking {
			t.Errorf("%d requests, %d canceled, asking %v", r.sent, r.canceled, a.asking)
		}
	})
}

// A request to a leader that hangs does not delay one to its successor.
func TestIndexOfTheNextLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &Store{ctx: ctx, cfg: Config{Peers: hangingPeer{}}}
		hung := make(chan error)
		go func() {
			_, err := s.askLeader(ctx, Target{ID: "old"})
			hung <- err
		}()
		synctest.Wait()
		soon, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		if index, err := s.askLeader(soon, Target{ID: "new"}); index != 3 || err != nil {
			t.Errorf("got %d, %v", index, err)
		}
		cancel()
		if err := <-hung; !errors.Is(err, context.Canceled) {
			t.Errorf("the old leader's: %v", err)
		}
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
