package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// followEvery is the pause between two checks.
	followEvery = time.Second
	// followLimit is how long it may take to apply what the leader had committed.
	followLimit = 5 * time.Second
	// snapshotLoop is how many installed snapshots without an entry in between are an alarm.
	snapshotLoop = 3
)

// following tells whether this node follows its leader. raft's last contact does
// not: heartbeats, and snapshots that no entry follows, count as contact. So the
// node asks the leader for the commit index and waits until it has applied it.
type following struct {
	problem   atomic.Pointer[followError] // nil: it follows
	snapshots atomic.Int32                // installed since the last entry
}

// followError is an [ErrNotReady].
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

// gotSnapshot counts snapshots. Several without an entry in between mean that the
// leader finds no entry in this node's log to continue from.
func (s *Store) gotSnapshot(index uint64) {
	if n := s.follow.snapshots.Add(1); n >= snapshotLoop {
		s.notFollowing(fmt.Sprintf("%d snapshots in a row, the last up to entry %d, and no entry in between", n, index))
	}
}

func (s *Store) notFollowing(text string) {
	err := &followError{fmt.Sprintf("%v: it does not follow the leader: %s", ErrNotReady, text)}
	if s.follow.problem.Swap(err) == nil {
		s.log.Error("this node does not follow its leader; it answers nothing until it does", "reason", text)
		s.integrity.wake(err)
	}
}

func (s *Store) follows() {
	s.follow.snapshots.Store(0)
	if s.follow.problem.Swap(nil) != nil {
		s.log.Info("this node follows its leader again", "index", s.State().Index())
		s.integrity.wake(nil)
	}
}

// followLoop gets a confirmed index and waits until this node has applied it.
// Without a leader it does nothing: the lag grows.
func (s *Store) followLoop(ctx context.Context) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return
	}
	last, seen := s.staleness.Now(), int32(0)
	for pause(ctx, followEvery) {
		if s.Diverged() != nil { // reinstall deals with it
			continue
		}
		at := s.staleness.Now()
		index, known := s.committed(ctx)
		if !known {
			continue
		}
		count := s.follow.snapshots.Load()
		looping := count >= snapshotLoop && count != seen // more came since the last check
		seen = count
		if s.applies(ctx, index) {
			last = at
			if !looping {
				s.follows()
			}
		} else if ctx.Err() == nil && s.Diverged() == nil {
			s.staleness.behind(last) // before the waiters are woken: they may read the lag
			s.notFollowing(fmt.Sprintf("entry %d was committed more than %s ago, and the last applied entry is %d",
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
