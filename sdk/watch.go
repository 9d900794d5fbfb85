package sdk

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// Watch reports changes until it is closed or its context ends. When a node is lost
// it resumes on another one, without an event.
//
// It never shows an older state than before, nor an empty one that only a lagging
// node has: where a node seems to have gone back, the leader is asked. Only if the
// cluster itself lost a part of its log does a watch go back, with an event that
// says Rebuilt.
//
// A watch that has got nothing for 5 s, from at least three attempts, sends an event
// with Err, keeps trying, and sends one with Recovered when the outage is over. If
// nodes refuse meanwhile, with ErrWrongCluster for instance, it sends another event
// with Err.
//
// Events are not a history. A slow consumer gets all changes since its last event
// as one event, so a watch holds only the newest state and the names of what
// changed in it.
//
// Next and All are for one goroutine at a time; the other methods for any.
type Watch[T any] struct {
	ctx       context.Context // ends the watch
	cancel    context.CancelFunc
	done      chan struct{} // closed when its goroutine has ended
	staleness staleness

	mu       sync.Mutex // guards the rest, and what poll and outage read
	wake     chan struct{}
	poll     func() (T, bool)
	outage   func(err error) T // the event of an outage, or with nil of its end
	failing  error             // why nothing can be followed
	reported error             // the value of failing in the last such event
	err      error
}

// newWatch makes a watch whose goroutine is run, which ends with the context of the
// watch. poll and outage are called with w.mu held.
func newWatch[T any](
	ctx context.Context, c *Client, poll func() (T, bool), outage func(error) T, run func(ctx context.Context, w *Watch[T]) error,
) (*Watch[T], error) {
	w := &Watch[T]{done: make(chan struct{}), wake: make(chan struct{}, 1), poll: poll, outage: outage}
	w.ctx, w.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, w.cancel)
	err := c.start(func() {
		defer close(w.done)
		defer stop()
		err := run(w.ctx, w)
		switch {
		case err != nil:
		case ctx.Err() != nil && c.ctx.Err() == nil:
			err = ctx.Err()
		default:
			err = ErrClosed
		}
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		w.cancel()
	})
	if err != nil {
		stop()
		w.cancel()
		return nil, err
	}
	return w, nil
}

// change runs f, which changes what poll reads, and wakes the consumer.
func (w *Watch[T]) change(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	signal(w.wake)
}

// reportOutage records why nothing can be followed, and nil when that is over.
func (w *Watch[T]) reportOutage(err error) { w.change(func() { w.failing = err }) }

// nextLocked returns the next event, if there is one.
func (w *Watch[T]) nextLocked() (T, bool) {
	if w.failing != w.reported { // by identity: each is reported once
		w.reported = w.failing
		return w.outage(w.failing), true
	}
	return w.poll()
}

// Next waits for the next event. If ctx ends it returns its error, and the watch
// goes on. After the end of the watch it returns ErrClosed, the error of the watch's
// own context, or the *Error with which a node refused the request.
func (w *Watch[T]) Next(ctx context.Context) (T, error) {
	for {
		w.mu.Lock()
		e, ok := w.nextLocked()
		w.mu.Unlock()
		if ok {
			return e, nil
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return e, ctx.Err()
		case <-w.done:
			return e, w.Err()
		}
	}
}

// All yields events until ctx or the watch ends. An error is yielded last,
// unless it is ErrClosed.
func (w *Watch[T]) All(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			e, err := w.Next(ctx)
			if errors.Is(err, ErrClosed) {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Age is the time since a node last confirmed that the watch has its newest state:
// the time since that message arrived, plus the node's own lag behind the leader.
// Before the first such message it is the largest duration.
func (w *Watch[T]) Age() time.Duration { return ageOf(w.staleness.since()) }

// Done is closed when the watch has ended.
func (w *Watch[T]) Done() <-chan struct{} { return w.done }

// Err is nil while the watch goes on, and then the reason of its end.
func (w *Watch[T]) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close ends the watch and waits for its goroutine.
func (w *Watch[T]) Close() error {
	w.cancel()
	<-w.done
	return nil
}
