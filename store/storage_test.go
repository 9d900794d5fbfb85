package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// A directory is opened by one process at a time.
func TestDirectoryIsLocked(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	n := c.Start("n1", store.Formation{})
	_, err := c.TryOpen("n1", func(cfg *store.Config) { cfg.BindAdvertise = "elsewhere:7370" })
	if !errors.Is(err, store.ErrDataDir) {
		t.Errorf("a second open: %v", err)
	}
	c.AwaitReady(n)
}

// restores counts the snapshots that a node installed.
type restores struct{ n atomic.Int32 }

func (*restores) Applied(*fsm.Update) {}

func (r *restores) Restored(*fsm.State) { r.n.Add(1) }

func TestFollowerFarBehindGetsASnapshot(t *testing.T) {
	t.Parallel()
	eachLog(t, testFollowerFarBehind)
}

func testFollowerFarBehind(t *testing.T, kind func(*store.Config)) {
	c := storetest.New(t, few, kind)
	nodes := c.Three()
	leader := c.Leader()
	var behind *storetest.Node
	for _, n := range nodes {
		if n.ID != leader.ID {
			behind = n
		}
	}
	behind.Kill()
	for i := range 100 {
		c.Write(register("web", fmt.Sprint("m", i), time.Minute))
	}
	if err := leader.Snapshot(); err != nil {
		t.Fatal(err)
	}
	seen := &restores{}
	back := c.Start(behind.ID, store.Formation{}, func(cfg *store.Config) { cfg.Observers = []fsm.Observer{seen} })
	c.AwaitReady(back)
	c.AwaitSame()
	if seen.n.Load() == 0 {
		t.Error("the follower caught up without a snapshot")
	}
	// Later it starts from its own snapshot.
	back.Stop()
	c.AwaitReady(c.Start(behind.ID, store.Formation{}))
	c.AwaitSame()
}

// The metrics count the log wherever it is.
func TestLogMetrics(t *testing.T) {
	t.Parallel()
	eachLogInRealTime(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, few, kind)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		before := n.Metrics()
		for i := range 40 {
			c.Write(register("web", fmt.Sprint("m", i), time.Minute))
		}
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
		after := n.Metrics()
		if after.LogWrites < before.LogWrites+40 || after.LogWriteTime <= before.LogWriteTime {
			t.Errorf("%d writes in %s, then %d in %s", before.LogWrites, before.LogWriteTime, after.LogWrites, after.LogWriteTime)
		}
		if before.FirstIndex != 1 || after.FirstIndex == 1 {
			t.Errorf("the log began with entry %d, and begins with entry %d after a snapshot", before.FirstIndex, after.FirstIndex)
		}
		var size int64
		for _, pattern := range []string{"raft.db", "wal/*"} {
			paths, err := filepath.Glob(filepath.Join(n.Dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				size += info.Size()
			}
		}
		if after.LogSize != size {
			t.Errorf("the log takes %d bytes, want %d", after.LogSize, size)
		}
	})
}

// A failed write of the log ends the node, and the cluster continues.
func TestStorageFailureEndsTheNode(t *testing.T) {
	t.Parallel()
	eachLog(t, testStorageFailure)
}

func testStorageFailure(t *testing.T, kind func(*store.Config)) {
	c := storetest.New(t, kind)
	c.Three()
	leader := c.Leader()
	if err := leader.BreakLog(); err != nil {
		t.Fatal(err)
	}
	if _, err := leader.Write(c.Context(), setGroup("web", 64)); err == nil {
		t.Error("a write was acknowledged without a log")
	}
	select {
	case <-leader.Failed():
	case <-c.Context().Done():
		t.Fatal("the node runs without its log")
	}
	if !errors.Is(leader.Failure(), store.ErrStorage) {
		t.Errorf("failure: %v", leader.Failure())
	}
	leader.Kill()
	c.Write(setGroup("web", 128))
	c.AwaitSame()
}

// hangingLog blocks in a write until thaw is closed.
type hangingLog struct {
	raft.LogStore
	hangs atomic.Bool
	thaw  chan struct{}
}

func (l *hangingLog) StoreLogs(logs []*raft.Log) error {
	if l.hangs.Load() {
		<-l.thaw
	}
	return l.LogStore.StoreLogs(logs)
}

// A hanging disk ends the node, and Close does not hang.
func TestHungDiskEndsTheNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("waits for the limit of Close")
		}
		c := storetest.New(t)
		disk := &hangingLog{thaw: make(chan struct{})}
		defer close(disk.thaw)
		n := c.Start("n1", store.Formation{}, func(cfg *store.Config) {
			cfg.MaxHang = 300 * time.Millisecond
			store.WrapLog(cfg, func(l raft.LogStore) raft.LogStore {
				disk.LogStore = l
				return disk
			})
		})
		c.AwaitReady(n)
		disk.hangs.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Write(ctx, setGroup("web", 64)); !errors.Is(err, store.ErrOutcomeUnknown) {
			t.Errorf("a write that hangs: %v, want ErrOutcomeUnknown", err)
		}
		select {
		case <-n.Failed():
		case <-c.Context().Done():
			t.Fatal("the node still runs")
		}
		closed := make(chan error, 1)
		go func() {
			n.HandOver()
			closed <- n.Close()
		}()
		select {
		case err := <-closed:
			if !errors.Is(err, store.ErrStorage) {
				t.Errorf("Close: %v, want ErrStorage", err)
			}
		case <-time.After(2 * store.FailedCloseLimit):
			t.Error("Close hangs with the disk")
		}
		c.Abandon(n)
	})
}

func TestUnfinishedSnapshotIsRemovedAtStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		n.Stop()
		half := n.Dir + "/snapshots/9-9-9.tmp"
		if err := os.MkdirAll(half, 0o755); err != nil {
			t.Fatal(err)
		}
		c.AwaitReady(c.Start("n1", store.Formation{}))
		if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	})
}

// A leader that failed in a hanging write sends no heartbeats, so another node is elected
// while its process still runs.
func TestHungLeaderIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		disks := make(map[string]*hangingLog)
		var mu sync.Mutex
		c.Together(3, func(cfg *store.Config) {
			disk := &hangingLog{thaw: make(chan struct{})}
			mu.Lock()
			disks[cfg.ID] = disk
			mu.Unlock()
			cfg.MaxHang = 300 * time.Millisecond
			store.WrapLog(cfg, func(l raft.LogStore) raft.LogStore {
				disk.LogStore = l
				return disk
			})
		})
		leader := c.Leader()
		disk := disks[leader.ID]
		disk.hangs.Store(true)
		thaw := sync.OnceFunc(func() { disk.hangs.Store(false); close(disk.thaw) })
		defer thaw()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = leader.Write(ctx, setGroup("web", 64)) // unknown outcome
		awaitEnd(t, c, leader)
		var others []string
		for _, n := range c.Nodes() {
			if n.ID != leader.ID {
				others = append(others, n.ID)
			}
		}
		c.LeaderOf(others...) // while the old leader hangs
		thaw()
		leader.Kill()
		c.Write(setGroup("web", 128))
		c.AwaitSame()
	})
}
