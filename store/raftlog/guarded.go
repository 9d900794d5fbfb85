package raftlog

import (
	"errors"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"
)

// logStore is raft's log. Failed writes and damaged entries end the node. It has no
// gaps: see IsMonotonic.
type logStore struct {
	raft.LogStore
	Watchdog
	tail *tail
	// keepFrom is the index of the oldest snapshot; the entries after it stay, so that
	// the node can start from it.
	keepFrom func() (index uint64, ok bool)
	// covered is the index of the newest snapshot.
	covered func() (index uint64, ok bool)
	writing func([]*raft.Log)  // called before entries are written
	wrote   func(index uint64) // called with the last entry after they were

	installed atomic.Bool // raft has installed a snapshot and will remove the log
}

// IsMonotonic makes raft remove all entries after it has installed a snapshot.
// Otherwise older entries would stay, with a gap after them that looks like damage.
// Raft v1.8.0 calls it at that moment only.
func (s *logStore) IsMonotonic() bool {
	s.installed.Store(true)
	return true
}

var _ raft.MonotonicLogStore = (*logStore)(nil)

func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	err := s.LogStore.GetLog(index, l)
	if errors.Is(err, ErrCorrupt) {
		s.readFailed(err)
	}
	return err
}

func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *logStore) StoreLogs(logs []*raft.Log) error {
	return s.run("write log", func() error {
		s.installed.Store(false)
		if s.writing != nil && len(logs) > 0 {
			s.writing(logs)
		}
		if err := s.LogStore.StoreLogs(logs); err != nil || len(logs) == 0 {
			return err
		}
		last := logs[len(logs)-1]
		err := s.tail.set(func(m *tailMark) { m.Index, m.Term = last.Index, last.Term }, false)
		if err == nil && s.wrote != nil {
			s.wrote(last.Index)
		}
		return err
	})
}

// DeleteRange removes entries from the front, which a snapshot covers, or from the end,
// or all. After an installed snapshot raft removes all, but keeps the last index in
// memory: so the entries that the snapshot does not cover stay here until raft finds
// that they conflict (see package rafttransport).
func (s *logStore) DeleteRange(low, high uint64) error {
	return s.run("truncate log", func() error {
		first, err := s.FirstIndex()
		if err != nil {
			return err
		}
		last, err := s.LastIndex()
		if err != nil {
			return err
		}
		if covered, ok := s.coveredOf(low, high, first, last); ok {
			if covered < low { // removed after an earlier snapshot of the same index
				return nil
			}
			return s.LogStore.DeleteRange(low, covered)
		}
		if high < last { // from the front
			if oldest, ok := s.keepFrom(); ok && low <= first {
				high = min(high, oldest)
			}
			if high < low {
				return nil
			}
			return s.LogStore.DeleteRange(low, high)
		}
		var before tailMark
		if low > first {
			var l raft.Log
			if err := s.LogStore.GetLog(low-1, &l); err != nil {
				return err
			}
			before.Index, before.Term = l.Index, l.Term
		}
		if err := s.tail.set(func(m *tailMark) { m.Index, m.Term = before.Index, before.Term }, true); err != nil {
			return err
		}
		return s.LogStore.DeleteRange(low, high)
	})
}

// coveredOf is the last index to remove after an installed snapshot, if the log goes
// beyond the snapshot.
func (s *logStore) coveredOf(low, high, first, last uint64) (covered uint64, ok bool) {
	if low > first || high < last || !s.installed.Swap(false) {
		return 0, false
	}
	covered, ok = s.covered()
	return covered, ok && covered+1 >= first && covered < last
}

// stableStore is raft's term and vote. Failed writes and damaged values end the node.
type stableStore struct {
	raft.StableStore
	Watchdog
	tail *tail
}

// The keys of raft's stable store.
const (
	KeyCurrentTerm = "CurrentTerm"
	keyVoteTerm    = "LastVoteTerm"
	keyVote        = "LastVoteCand"
)

func (s *stableStore) Get(key []byte) ([]byte, error) {
	value, err := s.StableStore.Get(key)
	if errors.Is(err, ErrCorrupt) {
		s.readFailed(err)
	}
	return value, err
}

func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	value, err := s.StableStore.GetUint64(key)
	if errors.Is(err, ErrCorrupt) {
		s.readFailed(err)
	}
	return value, err
}

func (s *stableStore) Set(key, value []byte) error {
	return s.run("write vote", func() error {
		if err := s.StableStore.Set(key, value); err != nil || string(key) != keyVote {
			return err
		}
		return s.tail.set(func(m *tailMark) { m.VoteHash = voteHash(value) }, false)
	})
}

// voteHash is never 0, which stands for an unknown vote.
func voteHash(candidate []byte) uint64 { return xxhash.Sum64(candidate) | 1 }

func (s *stableStore) SetUint64(key []byte, value uint64) error {
	err := s.run("write term", func() error {
		if err := s.StableStore.SetUint64(key, value); err != nil {
			return err
		}
		return s.tail.set(func(m *tailMark) {
			switch string(key) {
			case KeyCurrentTerm:
				m.CurrentTerm = value
			case keyVoteTerm:
				m.VoteTerm, m.VoteHash = value, 0 // raft writes the candidate next
			}
		}, false)
	})
	if err != nil && string(key) == KeyCurrentTerm && value > bootstrapTerm {
		s.waitForEnd()
	}
	return err
}

// bootstrapTerm is the term that raft writes when it forms a cluster. It returns an
// error of that write, and panics at later ones.
const bootstrapTerm = 1
