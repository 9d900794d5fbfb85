package store_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// follower returns a node that does not lead.
func follower(c *storetest.Cluster) *storetest.Node {
	leader := c.Leader()
	for _, n := range c.Nodes() {
		if n.ID != leader.ID {
			return n
		}
	}
	return nil
}

func awaitFailed(t *testing.T, c *storetest.Cluster, n *storetest.Node) {
	t.Helper()
	select {
	case <-n.Failed():
	case <-c.Context().Done():
		t.Fatalf("%s goes on: %+v", n.ID, n.Status())
	}
	if !errors.Is(n.Failure(), store.ErrMembership) {
		t.Errorf("%s failed with %v, want ErrMembership", n.ID, n.Failure())
	}
}

// wipe kills a follower and empties its directory.
func wipe(t *testing.T, c *storetest.Cluster) *storetest.Node {
	t.Helper()
	n := follower(c)
	wipeDown(t, n)
	return n
}

// wipeDown empties the directory of a node that has ended, and returns its id.
func wipeDown(t *testing.T, n *storetest.Node) string {
	t.Helper()
	n.Kill()
	if err := os.RemoveAll(n.Dir); err != nil {
		t.Fatal(err)
	}
	return n.ID
}

// A node whose directory was wiped lost its votes. It is refused under its old id
// until that id is removed, and until it has joined it neither votes nor follows.
func TestWipedNodeIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitKnown()
		n := follower(c)
		n.Kill()
		if err := os.RemoveAll(n.Dir); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			wiped := c.Open(n.ID)
			err := wiped.Store.Form(c.Context(), store.Formation{Peers: binds("n1", "n2", "n3"), Expect: 3})
			if !errors.Is(err, store.ErrMembership) {
				t.Errorf("the wiped node starts: %v, want ErrMembership", err)
			}
			if wiped.HasState() {
				t.Error("the wiped node took part before it joined")
			}
			wiped.Kill()
		}

		// As the error says: after the removal a node may join, under a new id or the old one.
		for _, id := range []string{"n4", n.ID} {
			if err := c.Leader().RemoveNode(c.Context(), n.ID); err != nil && !errors.Is(err, store.ErrUnknownNode) {
				t.Fatal(err)
			}
			c.Start(id, store.Formation{Peers: binds("n1", "n2", "n3"), JoinTimeout: storetest.Patience})
			c.Await("its vote", func() bool { return slices.Contains(storetest.Voters(c.Leader().Store), id) })
		}
		c.AwaitSame()
	})
}

// A wiped node that is started as a first node forms a new cluster. It fails when the
// cluster that it was part of calls it.
func TestWipedNodeThatFormsACluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitKnown()
		n := wipe(t, c)
		lone := c.Start(n.ID, store.Formation{})
		awaitFailed(t, c, lone)
	})
}

func TestRemovedNodeFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		n := follower(c)
		leader := c.Leader()
		if err := leader.RemoveNode(c.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
		if leader.State().Node(n.ID) != nil {
			t.Error("the cluster still knows the node")
		}
		awaitFailed(t, c, n)
		if err := n.Failure(); strings.Contains(err.Error(), "new id") || !strings.Contains(err.Error(), "empty data directory") {
			t.Errorf("failed with %v, which does not say how it may join again", err)
		}
		if got := c.Leader(); got.ID != leader.ID {
			t.Errorf("the removed node made %s lead", got.ID)
		}
		if err := leader.RemoveNode(c.Context(), n.ID); !errors.Is(err, store.ErrUnknownNode) {
			t.Errorf("a second removal: %v", err)
		}
	})
}

// A node that was asked to leave ends so, also if it learns of its removal by itself.
func TestLeavingNodeEndsAsOneThatLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		n := follower(c)
		n.Leaving(true)
		if err := c.Leader().RemoveNode(c.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
		select {
		case <-n.Failed():
		case <-c.Context().Done():
			t.Fatalf("%s goes on: %+v", n.ID, n.Status())
		}
		if err := n.Failure(); !errors.Is(err, store.ErrLeft) {
			t.Errorf("it ended with %v, want ErrLeft", err)
		}
	})
}

// A retry finishes a removal that changed raft's configuration but not the state.
func TestRemovalIsRepeatable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitKnown()
		n := follower(c)
		leader := c.Leader()
		hello := n.Self()
		if err := leader.RemoveNode(c.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
		n.Kill()
		if err := leader.RecordNode(c.Context(), hello); err != nil {
			t.Fatal(err)
		}
		if err := leader.RemoveNode(c.Context(), n.ID); err != nil {
			t.Errorf("retry: %v", err)
		}
		if leader.State().Node(n.ID) != nil {
			t.Error("the cluster still knows the node")
		}
	})
}

func TestRemovalOfTheLeaderAndTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Together(2)
		leader := c.Leader()
		if err := leader.RemoveNode(c.Context(), leader.ID); !errors.Is(err, store.ErrNotLeader) {
			t.Fatalf("a leader removes itself: %v", err)
		}
		other := follower(c).ID
		if other == leader.ID {
			other = c.Leader().ID
		}
		next := c.LeaderOf(other)
		if err := next.RemoveNode(c.Context(), leader.ID); err != nil {
			t.Fatal(err)
		}
		awaitFailed(t, c, leader)
		if err := next.RemoveNode(c.Context(), next.ID); !errors.Is(err, store.ErrMembership) {
			t.Errorf("the last voter: %v", err)
		}
		if err := next.RemoveNode(c.Context(), "nobody"); !errors.Is(err, store.ErrUnknownNode) {
			t.Errorf("an unknown node: %v", err)
		}
	})
}

func TestMovedNodeComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitKnown()
		n := follower(c)
		n.Kill()
		c.Write(register("web", "a", time.Minute)) // so that raft has seen the loss before the address changes
		moved := c.Start(n.ID, store.Formation{}, func(cfg *store.Config) { cfg.BindAdvertise, cfg.Addr = "elsewhere:1", "elsewhere:2" })
		c.AwaitReady(moved)
		c.Await("the new address", func() bool {
			for _, other := range c.Nodes() {
				known := other.State().Node(n.ID)
				if known == nil || known.Bind != "elsewhere:1" || known.Addr != "elsewhere:2" {
					return false
				}
			}
			return true
		})
		c.AwaitVoters("n1", "n2", "n3")
		c.AwaitSame()
		if known := moved.State().Node(n.ID); known.Incarnation != moved.Incarnation() {
			t.Errorf("%+v", known)
		}
	})
}

// Two nodes cannot have one address.
func TestAddressBelongsToOneNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader := c.Leader()
		hello := follower(c).Self()
		hello.ID, hello.Incarnation, hello.HasState = "n9", "other", false
		if err := leader.AdmitNode(c.Context(), hello); !errors.Is(err, store.ErrMembership) {
			t.Errorf("got %v, want ErrMembership", err)
		}
	})
}

// A refusal ends the joining node, so a deposed leader, whose state may be stale,
// refuses no node.
func TestDeposedLeaderRefusesNoNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, old, next := deposed(t)
		hello := old.Self()
		hello.ID, hello.Bind, hello.HasState = "n9", "n9:7370", true // like a node that next admitted
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := old.AdmitNode(ctx, hello); err == nil || errors.Is(err, store.ErrMembership) {
			t.Errorf("got %v", err)
		}
		if err := next.AdmitNode(c.Context(), hello); !errors.Is(err, store.ErrMembership) {
			t.Errorf("the current leader: %v", err)
		}
	})
}

// A node's fields are validated before raft's configuration changes.
func TestBadNodeIsRefusedBeforeTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		leader := c.Together(1)[0]
		before := leader.Status().CommitIndex
		for name, n := range map[string]store.Hello{
			"id":   {Cluster: "test", ID: "a/b", Bind: "n9:7370", Addr: "n9:9800", Incarnation: "x"},
			"bind": {Cluster: "test", ID: "n9", Bind: "not an address", Addr: "n9:9800", Incarnation: "x"},
			"addr": {Cluster: "test", ID: "n9", Bind: "n9:7370", Addr: "", Incarnation: "x"},
		} {
			if err := leader.AdmitNode(c.Context(), n); !errors.Is(err, fsm.ErrInvalid) {
				t.Errorf("%s: %v, want ErrInvalid", name, err)
			}
		}
		st := leader.Status()
		if len(st.Configuration) != 1 || st.CommitIndex != before {
			t.Errorf("configuration %v, index %d, was %d", st.Configuration, st.CommitIndex, before)
		}
	})
}
