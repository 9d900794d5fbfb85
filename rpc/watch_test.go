package rpc

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// slowSource has news when it is told to, and is level when it is told to be.
type slowSource struct {
	mu      sync.Mutex // guards the rest
	news    []frame
	wake    chan struct{}
	settled bool
}

func (s *slowSource) poll(frames []frame) ([]frame, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.news) == 0 {
		return frames, s.wake
	}
	frames = append(frames, s.news...)
	s.news = nil
	return frames, nil
}

func (s *slowSource) level(*fsm.State) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled
}

// tell makes the source level, with news.
func (s *slowSource) tell(news ...frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.news, s.settled = news, true
	wake := s.wake
	s.wake = make(chan struct{})
	close(wake)
}

// A watcher is told how fresh it is at every interval, whether there is news or
// not; but not while a change is on its way to it that it does not have.
func TestProgressWaitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &slowSource{wake: make(chan struct{}), settled: true}
		w := &watcher{
			source: src, state: func() *fsm.State { return nil }, progress: func(*fsm.State) frame { return newFrame([]byte("progress")) },
			every: time.Second, timer: time.NewTimer(time.Second),
		}
		start := time.Now()
		next := func() string {
			t.Helper()
			frames, err := w.next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var all string
			for _, f := range frames {
				all += string(f.data.Materialize()) + " "
			}
			return all
		}
		if got := next(); got != "progress " || time.Since(start) != time.Second {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		src.settled = false                            // a ring is being built
		time.AfterFunc(9500*time.Millisecond, func() { // between two ticks
			src.tell(newFrame([]byte("delta")))
		})
		if got := next(); got != "delta progress " || time.Since(start) != 10500*time.Millisecond {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(errStopping) })
		if _, err := w.next(ctx); err != errStopping {
			t.Errorf("a watch that was ended: %v", err)
		}
	})
}
