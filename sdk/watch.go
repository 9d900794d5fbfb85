package sdk

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// Watch tells of changes, for as long as it is not closed and its context has
// not ended. It survives the loss of nodes: it goes on through another one,
// from where it was, and shows nothing of it.
//
// What it shows is never older than what it has shown before, and never empty
// because a node knew no better: where a node seems to have gone back, the
// leader is asked. Only if the cluster itself lost a part of its log does a watch
// go back, with an event that says Rebuilt.
//
// A watch that has got nothing for 5 s, from at least three attempts, says so in an
// event with Err, goes on trying, and says Recovered in another when it is over.
// When nodes answer meanwhile and refuse, with ErrWrongCluster for instance, that is
// another event with Err.
//
// Events are not a history. A consumer that is slow is shown what changed since
// its last event as one event, so a watch holds no more than the newest state
// and the names of what changed in it.
//
// Next and All are for one goroutine at a time; the other methods for any.
type Watch[T any] struct {
	ctx    context.Context // ends the watch
	cancel context.CancelFunc
	done   chan struct{} // closed when its goroutine has ended
	fresh  freshness

	mu      sync.Mutex // guards the rest, and what poll and outage read
	wake    chan struct{}
	poll    func() (T, bool)
	outage  func(err error) T // the event of an outage, or with nil of its end
	failing error             // why there is nothing to follow
	told    error             // what failing was when it was last shown
	err     error
}

// newWatch makes a watch and lets run follow for it. run ends with the context
// of the watch; poll and outage are called with w.mu held.
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
	poke(w.wake)
}

// trouble notes why there is nothing to follow; nil: there is.
func (w *Watch[T]) trouble(err error) { w.change(func() { w.failing = err }) }

// nextLocked returns what is to be shown next.
func (w *Watch[T]) nextLocked() (T, bool) {
	if w.failing != w.told { // by identity: each is told once
		w.told = w.failing
		return w.outage(w.failing), true
	}
	return w.poll()
}

// Next waits for the next event. It returns the error that ended ctx, which
// ends the wait and not the watch; or, once the watch has ended, ErrClosed, the
// error of the watch's own context, or the *Error with which a node refused.
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

// Age is the time since a node last said that what the watch has received was
// its newest state: the time since the message came, and what the node said
// had passed since it last heard from the leader. Without such a word it is the
// longest duration there is.
func (w *Watch[T]) Age() time.Duration { return ageOf(w.fresh.since()) }

// Done is closed when the watch has ended.
func (w *Watch[T]) Done() <-chan struct{} { return w.done }

// Err is nil while the watch goes on, and then why it ended.
func (w *Watch[T]) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close ends the watch. It returns when nothing of it runs any more.
func (w *Watch[T]) Close() error {
	w.cancel()
	<-w.done
	return nil
}
