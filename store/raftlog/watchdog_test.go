package raftlog

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// faultyStore is a raft log and stable store with writes by the test.
type faultyStore struct {
	raft.LogStore
	raft.StableStore
	write func() error
}

func (f *faultyStore) StoreLog(*raft.Log) error         { return f.write() }
func (f *faultyStore) StoreLogs([]*raft.Log) error      { return f.write() }
func (f *faultyStore) DeleteRange(uint64, uint64) error { return f.write() }
func (f *faultyStore) Set([]byte, []byte) error         { return f.write() }
func (f *faultyStore) SetUint64([]byte, uint64) error   { return f.write() }
func (f *faultyStore) Get([]byte) ([]byte, error)       { return nil, errors.New("not found") }
func (f *faultyStore) GetUint64([]byte) (uint64, error) { return 0, errors.New("not found") }
func (f *faultyStore) GetLog(uint64, *raft.Log) error   { return raft.ErrLogNotFound }
func (f *faultyStore) FirstIndex() (uint64, error)      { return 1, nil }
func (f *faultyStore) LastIndex() (uint64, error)       { return 9, nil }

type namedWrite struct {
	name string
	run  func() error
}

// namedWrites are all kinds of writes.
func namedWrites(f *faultyStore, stop Watchdog) []namedWrite {
	logs, stable := &logStore{LogStore: f, Watchdog: stop, keepFrom: func() (uint64, bool) { return 0, false }}, &stableStore{StableStore: f, Watchdog: stop}
	return []namedWrite{
		{"StoreLog", func() error { return logs.StoreLog(&raft.Log{}) }},
		{"StoreLogs", func() error { return logs.StoreLogs([]*raft.Log{{}}) }},
		{"DeleteRange", func() error { return logs.DeleteRange(1, 2) }},
		{"Set", func() error { return stable.Set([]byte("k"), []byte("v")) }},
		{"SetUint64", func() error { return stable.SetUint64([]byte("k"), 1) }},
	}
}

func TestFailedWriteIsFatal(t *testing.T) {
	full := errors.New("no space left on device")
	f := &faultyStore{write: func() error { return full }}
	var got error
	for _, w := range namedWrites(f, Watchdog{MaxHang: time.Minute, Fatal: func(err error) { got = err }}) {
		got = nil
		err := w.run()
		if !errors.Is(err, ErrStorage) || !errors.Is(err, full) || !errors.Is(got, full) {
			t.Errorf("%s: returned %v, Fatal got %v", w.name, err, got)
		}
	}
}

func TestHungWriteIsFatal(t *testing.T) {
	for i, name := range []string{"StoreLog", "StoreLogs", "DeleteRange", "Set", "SetUint64"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				thaw := make(chan struct{})
				f := &faultyStore{write: func() error { <-thaw; return nil }}
				defer close(thaw)
				fatal := make(chan error, 1)
				w := namedWrites(f, Watchdog{MaxHang: 10 * time.Second, Fatal: func(err error) { fatal <- err }})[i]
				start := time.Now()
				go func() { _ = w.run() }()
				if err := <-fatal; !errors.Is(err, ErrStorage) || time.Since(start) != 10*time.Second {
					t.Errorf("Fatal got %v after %s, want ErrStorage after 10s", err, time.Since(start))
				}
			})
		})
	}
}

// TestPausedProcessIsNoHungWrite: after a long pause of the process its timers are due at
// once, which is no hung write.
func TestPausedProcessIsNoHungWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := 0
		w := startHangWatch(time.Hour, func() { hung++ })
		defer w.stop()
		for range hangSteps - 1 {
			w.tick() // however late
		}
		if hung != 0 {
			t.Error("a late timer was taken for a hung write")
		}
		w.tick()
		w.tick()
		if hung != 1 {
			t.Errorf("a hanging write was reported %d times", hung)
		}
	})
}

func TestGoodWritesAndReadsAreNotFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &faultyStore{write: func() error { after(9 * time.Second); return nil }}
		stop := Watchdog{MaxHang: 10 * time.Second, Fatal: func(err error) { t.Errorf("Fatal got %v", err) }}
		for _, w := range namedWrites(f, stop) {
			if err := w.run(); err != nil {
				t.Errorf("%s: %v", w.name, err)
			}
		}
		logs, stable := &logStore{LogStore: f, Watchdog: stop, keepFrom: func() (uint64, bool) { return 0, false }}, &stableStore{StableStore: f, Watchdog: stop}
		log := logs.GetLog(1, &raft.Log{})
		_, get := stable.Get(nil)
		if log == nil || get == nil {
			t.Error("a read error was lost")
		}
		after(time.Minute) // no timer is left behind
	})
}
