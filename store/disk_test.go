package store_test

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// freeDisks is the free space on each node's disk.
type freeDisks struct {
	mu   sync.Mutex
	free map[string]uint64
}

func (d *freeDisks) set(id string, free uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free[id] = free
}

func (d *freeDisks) of(cfg *store.Config) {
	id := cfg.ID
	cfg.MinFreeDisk = 100 << 20
	store.DiskFree(cfg, func() uint64 {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.free[id]
	})
}

func roomy() *freeDisks {
	return &freeDisks{free: map[string]uint64{"n1": 1 << 30, "n2": 1 << 30, "n3": 1 << 30}}
}

// refusesNewMembers waits until the leader refuses new members, or accepts them.
func refusesNewMembers(c *storetest.Cluster, leader *storetest.Node, want bool) (err error) {
	c.Await("the leader to follow the disks", func() bool {
		_, err = leader.Write(c.Context(), register("web", rand.Text(), time.Minute)) // a new member
		return want && errors.Is(err, store.ErrDiskLow) || !want && err == nil
	})
	return err
}

// wantRestToWork checks what is not refused while a disk is low.
func wantRestToWork(t *testing.T, c *storetest.Cluster, leader *storetest.Node, lease uint64) {
	t.Helper()
	if lost, _, err := leader.Renew(c.Context(), []uint64{lease}, nil); err != nil || len(lost) > 0 {
		t.Errorf("heartbeat: lost %v, %v", lost, err)
	}
	for name, cmd := range map[string]*fsmpb.Command{
		"a member that is there registers": register("web", "a", time.Minute),
		"a group that is there changes":    setGroup("web", 64),
		"deregister":                       deregister("web", "gone"),
	} {
		if _, err := leader.Write(c.Context(), cmd); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leader.ReadIndex(c.Context()); err != nil {
		t.Errorf("read: %v", err)
	}
	if _, err := leader.Write(c.Context(), setGroup("other", 64)); !errors.Is(err, store.ErrDiskLow) {
		t.Errorf("a new group: %v", err)
	}
}

func TestLeaderWithALowDiskRefusesMembers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := roomy()
		c := storetest.New(t, d.of)
		c.Three()
		lease := c.Write(register("web", "a", time.Minute)).LeaseID
		c.Write(register("web", "gone", time.Minute))
		leader := c.Leader()
		d.set(leader.ID, 99<<20)
		err := refusesNewMembers(c, leader, true)
		for _, part := range []string{leader.ID, "99.0 MiB", "100.0 MiB", "-min-free-disk"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %s", err, part)
			}
		}
		wantRestToWork(t, c, leader, lease)
		if st := leader.Status(); len(st.Alarms) != 1 || !strings.Contains(st.Alarms[0], "disk") || !st.Ready {
			t.Errorf("status: ready %v, alarms %q", st.Ready, st.Alarms)
		}
		d.set(leader.ID, 105<<20) // above the mark, but not enough
		c.Await("another check", func() bool {
			var low *store.DiskLowError
			return errors.As(leader.LowDisk(), &low) && low.Free == 105<<20
		})
		d.set(leader.ID, 111<<20)
		refusesNewMembers(c, leader, false)
		if a := leader.Status().Alarms; len(a) > 0 {
			t.Errorf("alarms %q", a)
		}
	})
}

// One low follower stops nothing; two of three nodes do, because the third is no
// majority.
func TestFollowersDisksCountAsAMajority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := roomy()
		c := storetest.New(t, d.of)
		c.Three()
		lease := c.Write(register("web", "a", time.Minute)).LeaseID
		c.Write(register("web", "gone", time.Minute))
		leader := c.Leader()
		var followers []*storetest.Node
		for _, n := range c.Nodes() {
			if n.ID != leader.ID {
				followers = append(followers, n)
			}
		}
		d.set(followers[0].ID, 1)
		c.Await("the follower's alarm", func() bool { return followers[0].LowDisk() != nil })
		for range 3 {
			refusesNewMembers(c, leader, false)
		}
		d.set(followers[1].ID, 1)
		err := refusesNewMembers(c, leader, true)
		for _, f := range followers {
			if err == nil || !strings.Contains(err.Error(), f.ID) {
				t.Errorf("%q does not name %s", err, f.ID)
			}
		}
		wantRestToWork(t, c, leader, lease)
		d.set(followers[0].ID, 1<<30)
		refusesNewMembers(c, leader, false)
	})
}

func TestFullDiskSaysWhatToDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		disk := &fullLog{}
		n := c.Start("n1", store.Formation{}, disk.before)
		c.AwaitReady(n)
		disk.err.Store(&fs.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC})
		if _, err := n.Write(c.Context(), setGroup("web", 64)); err == nil {
			t.Error("a write was acknowledged without a disk")
		}
		awaitEnd(t, c, n)
		if err := n.Failure(); !errors.Is(err, store.ErrStorage) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("failure: %v", err)
		}
		n.Kill()
		c.AwaitReady(c.Start("n1", store.Formation{}))
	})
}

// fullLog fails its writes once err is set.
type fullLog struct {
	raft.LogStore
	err atomic.Pointer[fs.PathError]
}

func (l *fullLog) before(cfg *store.Config) {
	store.WrapLog(cfg, func(inner raft.LogStore) raft.LogStore {
		l.LogStore = inner
		return l
	})
}

func (l *fullLog) StoreLogs(logs []*raft.Log) error {
	if err := l.err.Load(); err != nil {
		return err
	}
	return l.LogStore.StoreLogs(logs)
}
