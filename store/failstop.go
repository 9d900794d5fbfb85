package store

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// failStop ends the node when its log cannot be written: a leader whose disk
// fails or hangs would otherwise lead on, acknowledge nothing and never step
// down. The cluster goes on without it.
type failStop struct {
	maxHang time.Duration
	fatal   func(error)
}

// guard runs one write.
func (f failStop) guard(what string, write func() error) error {
	hung := time.AfterFunc(f.maxHang, func() {
		f.fatal(fmt.Errorf("%w: %s has not returned for %s", ErrStorage, what, f.maxHang))
	})
	defer hung.Stop()
	if err := write(); err != nil {
		err = fmt.Errorf("%w: %s: %w", ErrStorage, what, err)
		f.fatal(err)
		return err
	}
	return nil
}

// logStore guards a raft.LogStore. Reads pass.
type logStore struct {
	raft.LogStore
	failStop
}

func (s *logStore) StoreLog(l *raft.Log) error {
	return s.guard("write log", func() error { return s.LogStore.StoreLog(l) })
}

func (s *logStore) StoreLogs(logs []*raft.Log) error {
	return s.guard("write log", func() error { return s.LogStore.StoreLogs(logs) })
}

func (s *logStore) DeleteRange(low, high uint64) error {
	return s.guard("truncate log", func() error { return s.LogStore.DeleteRange(low, high) })
}

// stableStore guards a raft.StableStore. Reads pass.
type stableStore struct {
	raft.StableStore
	failStop
}

func (s *stableStore) Set(key, value []byte) error {
	return s.guard("write vote", func() error { return s.StableStore.Set(key, value) })
}

func (s *stableStore) SetUint64(key []byte, value uint64) error {
	return s.guard("write term", func() error { return s.StableStore.SetUint64(key, value) })
}
