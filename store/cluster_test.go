package store_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/lease"
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

// slowElections makes a node believe that it leads long after the others have elected
// another.
func slowElections(c *store.Config) { c.ElectionTimeout = 5 * time.Second }

func TestOneNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		r := c.Write(register("web", "a", time.Minute))
		index, err := n.ReadIndex(c.Context())
		if err != nil || index < r.Index {
			t.Errorf("read index %d after a write at %d, %v", index, r.Index, err)
		}
		lost, term, err := n.Renew(c.Context(), []uint64{r.LeaseID, 999}, nil)
		if err != nil || len(lost) != 1 || lost[0] != 999 || term != n.Term() {
			t.Errorf("renewal: lost %v, term %d, %v", lost, term, err)
		}
		if _, _, err := n.Renew(c.Context(), make([]uint64, fsm.MaxBatch+1), nil); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("too many leases: %v", err)
		}
		if _, err := n.Write(c.Context(), register("", "a", time.Minute)); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("a bad command: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := n.Write(ctx, register("web", "b", time.Minute)); !errors.Is(err, store.ErrBusy) {
			t.Errorf("a write with a canceled context: %v", err)
		}
		if st := n.Status(); st.Role != "leader" || !st.Voter || !st.Ready || st.Leases != 1 || st.LeaderID != "n1" {
			t.Errorf("%+v", st)
		}
		// It has a lag for a moment if the machine paused it.
		c.Await("a leader without a lag", func() bool { return n.Status().Lag == 0 })
		n.Stop()
		if _, err := n.Write(c.Context(), register("web", "a", time.Minute)); err == nil {
			t.Error("a closed store writes")
		}
		if err := n.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestThreeNodesJoin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Start("n1", store.Formation{})
		c.Write(setGroup("web", 128))
		n2 := c.Start("n2", store.Formation{Peers: []string{storetest.BindOf("n1")}, JoinTimeout: storetest.Patience})
		c.Start("n3", store.Formation{Peers: []string{n2.Bind}, JoinTimeout: storetest.Patience}) // by a follower
		c.AwaitVoters("n1", "n2", "n3")
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame()
		for _, n := range c.Nodes() {
			c.AwaitReady(n)
			known := n.State().Node(n.ID)
			if known == nil || known.Bind != n.Bind || known.Addr != n.ClientAddr() || known.Incarnation != n.Incarnation() {
				t.Errorf("the cluster has recorded %s as %+v", n.ID, known)
			}
		}
	})
}

func TestOnlyTheLeaderWritesAndConfirms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
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
			if _, _, err := n.Renew(c.Context(), []uint64{1}, nil); !errors.Is(err, store.ErrNotLeader) {
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
	})
}

func TestRestartNeedsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		nodes := c.Three()
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame()
		for _, n := range nodes {
			n.Stop()
		}
		for _, n := range nodes {
			// Without peers; Expect is ignored.
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
	})
}

// The state of a node that has just started may be very old.
func TestRestartedNodeIsNotReadyAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitSame()
		n := c.Node(others(c, c.Leader())[0])
		n.Stop()
		c.Net.Isolate(n.Bind)
		n = c.Start(n.ID, store.Formation{})
		c.Await("an attempt to be elected", func() bool { return n.Status().Role == "candidate" })
		if n.IsReady() {
			t.Error("it is ready without the others")
		}
		c.Net.Heal()
		c.AwaitReady(n)
	})
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
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
	})
}

// A heartbeat of leases of which one is another's renews none.
func TestRenewRefusesAnothersLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		mine, other := c.Write(registerFor("mine", "a")).LeaseID, c.Write(registerFor("other", "b")).LeaseID
		onlyMine := func(group, owner string) bool {
			return group == "web" && owner == string(tokenBytes("mine", fsm.TokenIDSize))
		}
		lost, _, err := n.Renew(c.Context(), []uint64{mine, other}, onlyMine)
		var refused *lease.NotOwnerError
		if !errors.As(err, &refused) || !slices.Equal(refused.LeaseIDs, []uint64{other}) || !errors.Is(err, fsm.ErrNotOwner) {
			t.Errorf("lost %v, %v", lost, err)
		}
		if lost, _, err := n.Renew(c.Context(), []uint64{mine, 999}, onlyMine); err != nil || len(lost) != 1 {
			t.Errorf("lost %v, %v", lost, err)
		}
	})
}
