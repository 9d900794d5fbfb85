package fsm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		release := holdBuilds(l.m)
		defer release()
		l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
		g := l.m.State().Group("web")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.WaitRing(ctx, l.index); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		var view *RingView
		go func() { view, _ = g.WaitRing(t.Context(), l.index) }()
		synctest.Wait()
		if view != nil {
			t.Fatal("got a ring that was not built")
		}
		release()
		synctest.Wait()
		if view == nil || view.Revision != g.Revision {
			t.Fatalf("got %+v after the build", view)
		}
	})
}

// Who waits for a ring of a state that a snapshot replaces is told, and does
// not wait for ever: nobody builds that ring any more.
func TestWaitRingOfAReplacedState(t *testing.T) {
	for name, data := range map[string][]byte{
		"with the group":    snapshotBytes(t, smallState(t).m.State()),
		"without the group": snapshotBytes(t, newState()),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				release := holdBuilds(l.m)
				defer release()
				l.must(register(newSeat("web", "z", "10.0.0.1:80", "one")))
				g := l.m.State().Group("web")
				early := make(chan error, 1)
				go func() {
					_, err := g.WaitRing(t.Context(), l.index)
					early <- err
				}()
				synctest.Wait()
				if err := l.m.Restore(newReader(data)); err != nil {
					t.Fatal(err)
				}
				release()
				synctest.Wait()
				select {
				case err := <-early:
					if !errors.Is(err, ErrReplaced) {
						t.Errorf("got %v, want ErrReplaced", err)
					}
				default:
					t.Fatal("still waits")
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := g.WaitRing(ctx, l.index); !errors.Is(err, ErrReplaced) {
					t.Errorf("who comes later gets %v, want ErrReplaced", err)
				}
			})
		})
	}
}

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
