package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

func register(group, id string, ttl time.Duration) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: group, Id: id, Addr: "a:1", Weight: 1, TtlMs: ttl.Milliseconds(), Instance: []byte("one"),
	}}}
}

func deregister(group, id string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Deregister{Deregister: &fsmpb.Deregister{Group: group, Id: id}}}
}

func setGroup(group string, nodes uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{Group: group, VirtualNodes: nodes}}}
}

func member(s *fsm.State, group, id string) *fsm.Member {
	if g := s.Group(group); g != nil {
		return g.Member(id)
	}
	return nil
}

// slowElections makes a node lead on in its mind long after the others have
// elected another.
func slowElections(c *store.Config) { c.ElectionTimeout = 5 * time.Second }

func TestOneNode(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	n := c.Start("n1", store.Formation{})
	c.AwaitReady(n)
	r := c.Write(register("web", "a", time.Minute))
	index, err := n.ReadIndex(c.Context())
	if err != nil || index < r.Index {
		t.Errorf("read index %d after a write at %d, %v", index, r.Index, err)
	}
	lost, term, err := n.Renew(c.Context(), []uint64{r.LeaseID, 999})
	if err != nil || len(lost) != 1 || lost[0] != 999 || term != n.Term() {
		t.Errorf("renewal: lost %v, term %d, %v", lost, term, err)
	}
	if _, _, err := n.Renew(c.Context(), make([]uint64, fsm.MaxBatch+1)); !errors.Is(err, fsm.ErrInvalid) {
		t.Errorf("too many leases: %v", err)
	}
	if _, err := n.Write(c.Context(), register("", "a", time.Minute)); !errors.Is(err, fsm.ErrInvalid) {
		t.Errorf("a bad command: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Write(ctx, register("web", "b", time.Minute)); !errors.Is(err, store.ErrBusy) {
		t.Errorf("a write that nobody waits for: %v", err)
	}
	if st := n.Status(); st.Role != "leader" || !st.Voter || !st.Ready || st.Leases != 1 || st.LeaderID != "n1" || st.Lag != 0 {
		t.Errorf("%+v", st)
	}
	n.Stop()
	if _, err := n.Write(c.Context(), register("web", "a", time.Minute)); err == nil {
		t.Error("a closed store writes")
	}
	if err := n.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestThreeNodesJoin(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	c.Start("n1", store.Formation{})
	c.Write(setGroup("web", 128))
	n2 := c.Start("n2", store.Formation{Peers: []string{storetest.BindOf("n1")}, JoinTimeout: storetest.Patience})
	c.Start("n3", store.Formation{Peers: []string{n2.Bind}, JoinTimeout: storetest.Patience}) // by way of a follower
	c.AwaitVoters("n1", "n2", "n3")
	c.Write(register("web", "a", time.Minute))
	c.AwaitSame()
	for _, n := range c.Nodes() {
		c.AwaitReady(n)
		known := n.State().Node(n.ID)
		if known == nil || known.Bind != n.Bind || known.Addr != n.ClientAddr() || known.Incarnation != n.Incarnation() {
			t.Errorf("the cluster knows of %s: %+v", n.ID, known)
		}
	}
}

func TestFollowerRefersToTheLeader(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	nodes := c.Three()
	leader := c.Leader()
	for _, n := range nodes {
		if n.ID == leader.ID {
			continue
		}
		if _, err := n.Write(c.Context(), setGroup("web", 64)); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("a follower writes: %v", err)
		}
		if _, _, err := n.Renew(c.Context(), []uint64{1}); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("a follower renews: %v", err)
		}
		if _, err := n.ReadIndex(c.Context()); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("a follower confirms: %v", err)
		}
		r := c.Write(register("web", n.ID, time.Minute))
		index, err := n.LinearizableIndex(c.Context())
		if err != nil || index < r.Index {
			t.Errorf("a follower gets index %d after a write at %d, %v", index, r.Index, err)
		}
	}
}

func TestRestartNeedsNothing(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	nodes := c.Three()
	c.Write(register("web", "a", time.Minute))
	c.AwaitSame()
	for _, n := range nodes {
		n.Stop()
	}
	for _, n := range nodes {
		// Not even the peers are named, and Expect is ignored.
		c.Start(n.ID, store.Formation{Expect: 5})
	}
	c.Leader()
	c.AwaitSame()
	for _, n := range c.Nodes() {
		c.AwaitReady(n)
		if member(n.State(), "web", "a") == nil {
			t.Errorf("%s lost a member", n.ID)
		}
	}
}

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

func TestBadConfig(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	for name, edit := range map[string]func(*store.Config){
		"no id":             func(cfg *store.Config) { cfg.ID = "" },
		"no cluster":        func(cfg *store.Config) { cfg.Cluster = "" },
		"no bind-advertise": func(cfg *store.Config) { cfg.BindAdvertise = "" },
		"no advertise":      func(cfg *store.Config) { cfg.Addr = "x" },
		"election timeout":  func(cfg *store.Config) { cfg.ElectionTimeout = time.Millisecond },
	} {
		if _, err := c.TryOpen("n1", edit); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// restores counts the snapshots that a node was given.
type restores struct{ n atomic.Int32 }

func (*restores) Applied(*fsm.State, []fsm.Change, []uint64) {}
func (r *restores) Restored(*fsm.State)                      { r.n.Add(1) }

func TestFollowerFarBehindGetsASnapshot(t *testing.T) {
	t.Parallel()
	few := func(cfg *store.Config) { cfg.SnapshotThreshold = 8 }
	c := storetest.New(t, few)
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
	// And it starts from its own snapshot after that.
	back.Stop()
	c.AwaitReady(c.Start(behind.ID, store.Formation{}))
	c.AwaitSame()
}

// A log that cannot be written ends the node, and the cluster goes on.
func TestStorageFailureEndsTheNode(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
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
		t.Fatal("the node goes on without its log")
	}
	if !errors.Is(leader.Failure(), store.ErrStorage) {
		t.Errorf("failure: %v", leader.Failure())
	}
	leader.Kill()
	c.Write(setGroup("web", 128))
	c.AwaitSame()
}

// hangingLog stops in a write until the test lets it go.
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

// A disk that hangs ends the node as one that fails does, and its Close does
// not hang with it.
func TestHungDiskEndsTheNode(t *testing.T) {
	t.Parallel()
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
		t.Fatal("the node goes on")
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
}

func TestUnfinishedSnapshotIsRemovedAtStart(t *testing.T) {
	t.Parallel()
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
}
