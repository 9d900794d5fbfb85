package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// rounds is a check whose results come from the test.
type rounds struct {
	started int
	answer  chan error
}

func newRounds(ctx context.Context) (*rounds, *confirmer) {
	r := &rounds{answer: make(chan error)}
	c := newConfirmer(func(*leadership) error {
		r.started++
		return <-r.answer
	})
	go c.loop(ctx)
	return r, c
}

func lead(ctx context.Context) (*leadership, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	return &leadership{ctx: ctx}, cancel
}

// call is one caller of the confirmer.
type call struct {
	done bool
	err  error
}

func (c *confirmer) ask(ctx context.Context, l *leadership) *call {
	a := &call{}
	go func() {
		a.err = c.wait(ctx, l)
		a.done = true
	}()
	synctest.Wait()
	return a
}

// A call during a round waits for the next one: the current round may have asked its
// quorum before the call.
func TestConfirmationStartsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := newRounds(t.Context())
		l, stop := lead(t.Context())
		defer stop()
		first := c.ask(t.Context(), l)
		if r.started != 1 {
			t.Fatalf("%d rounds for the first question", r.started)
		}
		var late []*call
		for range 10 {
			late = append(late, c.ask(t.Context(), l))
		}
		if r.started != 1 {
			t.Fatalf("%d rounds at a time", r.started)
		}
		r.answer <- nil
		synctest.Wait()
		if !first.done || first.err != nil {
			t.Errorf("the first question: %+v", first)
		}
		for i, a := range late {
			if a.done {
				t.Errorf("call %d was answered by a round that started before it", i)
			}
		}
		if r.started != 2 {
			t.Errorf("%d rounds, want a second one", r.started)
		}
		stale := errors.New("a newer term")
		r.answer <- stale
		synctest.Wait()
		for i, a := range late {
			if !a.done || !errors.Is(a.err, stale) {
				t.Errorf("call %d: %+v", i, a)
			}
		}
		if r.started != 2 {
			t.Errorf("%d rounds for eleven calls, want 2", r.started)
		}
	})
}

func TestConfirmationEndsWithTheLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := newRounds(t.Context())
		l, stop := lead(t.Context())
		running, waiting := c.ask(t.Context(), l), c.ask(t.Context(), l)
		stop()
		synctest.Wait()
		for _, a := range []*call{running, waiting, c.ask(t.Context(), l)} {
			if !a.done || !errors.Is(a.err, ErrNotLeader) {
				t.Errorf("%+v, want ErrNotLeader", a)
			}
		}
		r.answer <- nil
		r.answer <- nil
	})
}

func TestConfirmationEndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := newRounds(t.Context())
		l, stop := lead(t.Context())
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a := c.ask(ctx, l)
		after(2 * time.Second)
		synctest.Wait()
		if !a.done || !errors.Is(a.err, context.DeadlineExceeded) {
			t.Errorf("%+v, want the caller's deadline", a)
		}
		r.answer <- nil
	})
}

// A call of an earlier leadership does not replace the round that the current one
// waits for.
func TestConfirmationOfAnEarlierLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := newRounds(t.Context())
		past, end := lead(t.Context())
		busy := c.ask(t.Context(), past)
		end()
		l, stop := lead(t.Context())
		defer stop()
		present := c.ask(t.Context(), l)
		stale := c.ask(t.Context(), past)
		if !stale.done || !errors.Is(stale.err, ErrNotLeader) {
			t.Errorf("%+v, want ErrNotLeader", stale)
		}
		r.answer <- nil // busy's
		synctest.Wait()
		if r.started != 2 {
			t.Fatal("the current leadership's round was lost")
		}
		r.answer <- nil
		synctest.Wait()
		if !present.done || present.err != nil || !busy.done {
			t.Errorf("present %+v, busy %+v", present, busy)
		}
	})
}

func BenchmarkConfirm(b *testing.B) {
	c := newConfirmer(func(*leadership) error { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.loop(ctx)
	l, stop := lead(ctx)
	defer stop()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := c.wait(ctx, l); err != nil {
				b.Error(err)
			}
		}
	})
}
