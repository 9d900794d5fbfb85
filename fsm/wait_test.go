package fsm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestWaitIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		if s, err := l.m.WaitIndex(t.Context(), 0); err != nil || s.Index() != 0 {
			t.Fatalf("index 0: %v", err)
		}
		stop := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(stop)
		if _, err := l.m.WaitIndex(ctx, 1); !errors.Is(err, stop) {
			t.Fatalf("got %v, want the cause", err)
		}
		got := make([]*State, 4)
		for i := range got {
			go func() { got[i], _ = l.m.WaitIndex(t.Context(), uint64(i+1)) }()
		}
		for applied := range got {
			synctest.Wait()
			for i, s := range got {
				if (s != nil) != (i < applied) {
					t.Fatalf("at index %d: the wait for %d is done: %t", applied, i+1, s != nil)
				}
			}
			l.must(termStart("n1"))
		}
		synctest.Wait()
		if got[3] == nil || got[3].Index() < 4 {
			t.Errorf("got %+v", got[3])
		}
	})
}

func TestWaitIndexWakesOnRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := smallState(t)
		l := newLog(t)
		var got *State
		go func() { got, _ = l.m.WaitIndex(t.Context(), from.index) }()
		synctest.Wait()
		if err := l.m.Restore(newReader(snapshotBytes(t, from.m.State()))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got == nil {
			t.Error("still waits")
		}
	})
}

func TestWaitersAreServedByIndex(t *testing.T) {
	var h indexWaiters
	far, near, gone := h.add(9), h.add(3), h.add(4)
	h.remove(gone)
	h.remove(gone) // twice does no harm
	h.reached(2)
	select {
	case <-near.done:
		t.Error("woken before its index")
	default:
	}
	h.reached(5)
	<-near.done
	select {
	case <-far.done:
		t.Error("woken before its index")
	case <-gone.done:
		t.Error("woken after it left")
	default:
	}
	if h.reached(9); h.Len() != 0 {
		t.Errorf("%d left", h.Len())
	}
	<-far.done
}

// A wait that ends leaves the other waits for its index alone, also those after the
// state went back.
func TestWaitersOfOneIndex(t *testing.T) {
	var h indexWaiters
	served := func(w *indexWaiter) {
		t.Helper()
		select {
		case <-w.done:
		default:
			t.Error("not woken at its index")
		}
	}
	one, two := h.add(3), h.add(3)
	h.remove(one)
	h.reached(3)
	served(two)
	again := h.add(3)
	h.remove(two)
	h.reached(3)
	served(again)
	if last := h.add(4); h.Len() != 1 {
		t.Errorf("%d wait", h.Len())
	} else if h.remove(last); h.Len() != 0 {
		t.Error("a wait that ended is kept")
	}
}
