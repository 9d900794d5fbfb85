package rpc

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowSource has news when it is told to, and is level when it is told to be.
type slowSource struct {
	mu      sync.Mutex // guards the rest
	news    []frame
	wake    chan struct{}
	settled bool
}

func (s *slowSource) poll(frames []frame) ([]frame, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.news) == 0 {
		return frames, s.wake, nil
	}
	frames = append(frames, s.news...)
	s.news = nil
	return frames, nil, nil
}

func (s *slowSource) Progress() (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 7, s.settled
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
			source: src, progress: func(index uint64) frame { return newFrame([]byte("progress " + strconv.FormatUint(index, 10))) },
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
		w.late = true // as at the start of a stream
		if got := next(); got != "progress 7 " || time.Since(start) != 0 {
			t.Errorf("first %q after %v", got, time.Since(start))
		}
		if got := next(); got != "progress 7 " || time.Since(start) != time.Second {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		src.settled = false                            // more is to come
		time.AfterFunc(9500*time.Millisecond, func() { // between two ticks
			src.tell(newFrame([]byte("delta")))
		})
		if got := next(); got != "delta progress 7 " || time.Since(start) != 10500*time.Millisecond {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		// Under lasting change a watcher that keeps up is told as often.
		told := 0
		for began := time.Now(); time.Since(began) < 10*time.Second; {
			time.AfterFunc(10*time.Millisecond, func() { src.tell(newFrame([]byte("delta"))) })
			if strings.HasSuffix(next(), "progress 7 ") {
				told++
			}
		}
		if told < 9 || told > 10 {
			t.Errorf("told %d times in ten seconds", told)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(errStopping) })
		var err error
		for err == nil { // what the last round told may still come
			_, err = w.next(ctx)
		}
		if err != errStopping {
			t.Errorf("a watch that was ended: %v", err)
		}
	})
}
