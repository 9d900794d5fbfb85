package store

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
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
	watch := startHangWatch(f.maxHang, func() {
		f.fatal(fmt.Errorf("%w: %s has not returned for %s", ErrStorage, what, f.maxHang))
	})
	defer watch.stop()
	if err := write(); err != nil {
		err = fmt.Errorf("%w: %s: %w%s", ErrStorage, what, err, advice(err))
		f.fatal(err)
		return err
	}
	return nil
}

// hangSteps is how many times in a row a write must be seen hanging.
const hangSteps = 10

// hangWatch looks at a write in steps and counts the steps, not the time: a
// process that stood still, or a machine that slept, in the middle of a write
// comes back to one step that took long, and not to a disk that hangs.
type hangWatch struct {
	step  time.Duration
	hangs func()

	mu    sync.Mutex // guards the rest
	timer *time.Timer
	left  int // 0: it is over
}

func startHangWatch(limit time.Duration, hangs func()) *hangWatch {
	w := &hangWatch{step: limit / hangSteps, hangs: hangs, left: hangSteps}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.step, w.tick)
	return w
}

func (w *hangWatch) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left == 0 {
		return
	}
	if w.left--; w.left == 0 {
		w.hangs()
		return
	}
	w.timer.Reset(w.step)
}

func (w *hangWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = 0
	w.timer.Stop()
}

// advice says what helps against an error of the disk.
func advice(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "; free some space there and start the node again, what it acknowledged is on its disk"
	}
	return ""
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
