package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// followEvery is the pause between two looks at whether this node follows.
	followEvery = time.Second
	// followLimit is how long it may take to apply what the leader had committed.
	followLimit = 5 * time.Second
	// snapshotLoop is how many snapshots may come without an entry in between.
	snapshotLoop = 3
)

// following knows whether this node follows its leader. Raft's contact with the
// leader does not tell: heartbeats, and snapshots after which nothing comes, are
// contact too. So a node asks what is committed, and waits until it has
// applied that.
type following struct {
	problem   atomic.Pointer[followError] // nil: it follows
	snapshots atomic.Int32                // that came since the last entry
}

// followError says how this node falls short; it is an [ErrNotReady].
type followError struct{ text string }

func (e *followError) Error() string { return e.text }
func (e *followError) Unwrap() error { return ErrNotReady }

func (f *following) err() error {
	if p := f.problem.Load(); p != nil {
		return p
	}
	return nil
}

func (f *following) gotEntries() { f.snapshots.Store(0) }

// gotSnapshot counts snapshots. One that comes after the other, and never an
// entry, means that the leader finds nothing in this node's log to go on from.
func (s *Store) gotSnapshot(index uint64) {
	if n := s.follow.snapshots.Add(1); n >= snapshotLoop {
		s.notFollowing(fmt.Sprintf("%d snapshots came, the last up to entry %d, and no entry in between", n, index))
	}
}

func (s *Store) notFollowing(text string) {
	err := &followError{fmt.Sprintf("%v: it does not follow the leader: %s", ErrNotReady, text)}
	if s.follow.problem.Swap(err) == nil {
		s.log.Error("this node does not follow its leader; it answers nothing until it does", "why", text)
		s.integrity.wake()
	}
}

func (s *Store) follows() {
	s.follow.snapshots.Store(0)
	if s.follow.problem.Swap(nil) != nil {
		s.log.Info("this node follows its leader again", "index", s.State().Index())
		s.integrity.wake()
	}
}

// followLoop asks for a confirmed index and waits until this node has applied
// it. Without a leader there is nothing to follow, and the lag tells.
func (s *Store) followLoop(ctx context.Context) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return
	}
	last, seen := s.staleness.Now(), int32(0)
	for pause(ctx, followEvery) {
		if s.Diverged() != nil { // which has its own way out
			continue
		}
		at := s.staleness.Now()
		index, known := s.committed(ctx)
		if !known {
			continue
		}
		came := s.follow.snapshots.Load()
		looping := came >= snapshotLoop && came != seen // they go on coming
		seen = came
		if s.applies(ctx, index) {
			last = at
			if !looping {
				s.follows()
			}
		} else if ctx.Err() == nil && s.Diverged() == nil {
			s.staleness.behind(last) // before anyone is told, who may look at the lag
			s.notFollowing(fmt.Sprintf("entry %d was committed %s ago, and entry %d is the last that is applied here",
				index, followLimit, s.State().Index()))
		}
	}
}

func (s *Store) committed(ctx context.Context) (index uint64, known bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	index, err := s.LinearizableIndex(ctx)
	return index, err == nil
}

func (s *Store) applies(ctx context.Context, index uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	_, err := s.WaitIndex(ctx, index)
	return err == nil
}
