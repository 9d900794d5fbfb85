package rpc

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// slowSource has the frames and the progress that the test sets.
type slowSource struct {
	mu      sync.Mutex // guards the rest
	frames  []frame
	wake    chan struct{}
	settled bool
}

func (s *slowSource) poll(frames []frame) ([]frame, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) == 0 {
		return frames, s.wake, nil
	}
	frames = append(frames, s.frames...)
	s.frames = nil
	return frames, nil, nil
}

func (s *slowSource) Progress() (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 7, s.settled
}

// send sets frames, and progress with them.
func (s *slowSource) send(frames ...frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames, s.settled = frames, true
	wake := s.wake
	s.wake = make(chan struct{})
	close(wake)
}

// polled tells when it is polled.
type polled struct {
	slowSource
	before func()
}

func (p *polled) poll(frames []frame) ([]frame, <-chan struct{}, error) {
	p.before()
	return p.slowSource.poll(frames)
}

// A node may catch up between the poll and the progress: the lag is that of what was
// polled, or an earlier one, which is longer.
func TestProgressHasTheLagOfBefore(t *testing.T) {
	lag := time.Hour
	w := &watcher{
		source: &polled{slowSource{wake: make(chan struct{}), settled: true}, func() { lag = 0 }},
		lag:    func() time.Duration { return lag }, progressFrame: progressFrame,
		interval: time.Second, timer: time.NewTimer(time.Second), due: true,
	}
	frames, err := w.next(t.Context())
	if err != nil || len(frames) != 1 {
		t.Fatal(frames, err)
	}
	var e registrypb.WatchEvent
	if err := proto.Unmarshal(frames[0].data.Materialize(), &e); err != nil || e.GetProgress().GetLag().AsDuration() != time.Hour {
		t.Errorf("%v, %v", &e, err)
	}
}

// A watcher gets progress at every interval, with changes or without; but not while it
// lacks a change.
func TestProgressWaitsForPendingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &slowSource{wake: make(chan struct{}), settled: true}
		w := &watcher{
			source: src, lag: func() time.Duration { return 0 },
			progressFrame: func(index uint64, _ time.Duration) frame {
				return newFrame([]byte("progress " + strconv.FormatUint(index, 10)))
			},
			interval: time.Second, timer: time.NewTimer(time.Second),
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
		w.due = true // as at the start of a stream
		if got := next(); got != "progress 7 " || time.Since(start) != 0 {
			t.Errorf("first %q after %v", got, time.Since(start))
		}
		if got := next(); got != "progress 7 " || time.Since(start) != time.Second {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		src.settled = false                            // a change is pending
		time.AfterFunc(9500*time.Millisecond, func() { // between two ticks
			src.send(newFrame([]byte("delta")))
		})
		if got := next(); got != "delta progress 7 " || time.Since(start) != 10500*time.Millisecond {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		// Under lasting change a watcher that keeps up gets it as often.
		events := 0
		for began := time.Now(); time.Since(began) < 10*time.Second; {
			time.AfterFunc(10*time.Millisecond, func() { src.send(newFrame([]byte("delta"))) })
			if strings.HasSuffix(next(), "progress 7 ") {
				events++
			}
		}
		if events < 9 || events > 10 {
			t.Errorf("%d events in ten seconds", events)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(errStopping) })
		var err error
		for err == nil { // frames of the last round may still come
			_, err = w.next(ctx)
		}
		if err != errStopping {
			t.Errorf("a watch that was ended: %v", err)
		}
	})
}

// A stream ends when the node is found not to follow, and another one when the node stops.
func TestStreamsEndWhenTheNodeStopsAnswering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		n, _, block := threeWithBlocking(t, c)
		defer close(block.release)
		s := serverOf(t, n)
		stream := func() context.Context {
			ctx, cancel := context.WithCancelCause(t.Context())
			t.Cleanup(s.whileServing(cancel))
			return ctx
		}
		before := stream()
		c.Write(register("stop", "a", "10.0.0.1:80"))
		c.Await("the node to notice", func() bool { return n.Serving() != nil })
		synctest.Wait()
		if err := context.Cause(before); !errors.Is(err, store.ErrNotReady) {
			t.Errorf("a stream of a node that does not follow: %v", err)
		}
		after := stream()
		synctest.Wait()
		if err := context.Cause(after); err != nil {
			t.Errorf("a later stream: %v", err)
		}
		s.cancel()
		synctest.Wait()
		if err := context.Cause(after); !errors.Is(err, errStopping) {
			t.Errorf("a stream of a node that stops: %v", err)
		}
	})
}
