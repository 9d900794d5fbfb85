package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// checkOften makes the nodes compare their states often.
func checkOften(c *store.Config) { c.CheckInterval = 50 * time.Millisecond }

// awaitEnd waits until the node fails.
func awaitEnd(t *testing.T, c *storetest.Cluster, n *storetest.Node) {
	t.Helper()
	select {
	case <-n.Failed():
	case <-c.Context().Done():
		t.Fatalf("%s goes on: %+v", n.ID, n.Status())
	}
}

// awaitDiverged waits until the node finds its state wrong.
func awaitDiverged(c *storetest.Cluster, n *storetest.Node) error {
	var err error
	c.Await("the node to find its state wrong", func() bool {
		err = n.Diverged()
		return err != nil
	})
	return err
}

// holdState blocks a node's reinstallation until release is closed, so that a test can
// examine the node meanwhile.
type holdState struct {
	store.Peers
	release chan struct{}
}

func (p holdState) State(ctx context.Context, node store.Target, atLeast uint64) (r io.ReadCloser, err error) {
	select {
	case <-p.release:
		return p.Peers.State(ctx, node, atLeast)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A follower or a leader with a wrong state finds that, answers nothing, does not lead,
// and answers again with the right state.
func TestWrongStateIsFoundAndReinstalled(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"follower", "leader"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			c := storetest.New(t, checkOften)
			c.Together(3, func(cfg *store.Config) {
				cfg.Peers = holdState{Peers: c.Peers(cfg.BindAdvertise), release: release}
			})
			c.Write(register("web", "a", time.Minute))
			culprit := c.Leader()
			if role == "follower" {
				culprit = follower(c)
			}
			answering := culprit.Answering()
			if err := culprit.Corrupt(register("web", "ghost", time.Minute)); err != nil {
				t.Fatal(err)
			}
			c.Write(register("web", "b", time.Minute)) // a check entry follows
			err := awaitDiverged(c, culprit)
			if !errors.Is(err, store.ErrDiverged) || !strings.Contains(err.Error(), "state digest at index") {
				t.Errorf("finding: %v", err)
			}
			if err := culprit.Serving(); !errors.Is(err, store.ErrDiverged) {
				t.Errorf("Serving: %v", err)
			}
			if err := context.Cause(answering); !errors.Is(err, store.ErrDiverged) {
				t.Errorf("what began before goes on: %v", err)
			}
			answering = culprit.Answering()
			if st := culprit.Status(); st.Ready || len(st.Alarms) == 0 {
				t.Errorf("status: ready %v, alarms %q", st.Ready, st.Alarms)
			}
			if _, err := culprit.Write(c.Context(), register("web", "c", time.Minute)); !errors.Is(err, store.ErrNotLeader) {
				t.Errorf("a write on it: %v", err)
			}
			if _, _, err := culprit.Renew(c.Context(), nil, nil); !errors.Is(err, store.ErrNotLeader) {
				t.Errorf("a heartbeat on it: %v", err)
			}
			if err := culprit.WriteState(c.Context(), 0, &bytes.Buffer{}); !errors.Is(err, store.ErrDiverged) {
				t.Errorf("it sends its state: %v", err)
			}
			var others []string
			for _, n := range c.Nodes() {
				if n.ID != culprit.ID {
					others = append(others, n.ID)
				}
			}
			c.LeaderOf(others...)
			c.Write(register("web", "d", time.Minute)) // the cluster goes on
			close(release)
			c.Await("the node to answer again", func() bool { return culprit.Serving() == nil })
			if member(culprit.State(), "web", "ghost") != nil || member(culprit.State(), "web", "d") == nil {
				t.Error("the state that it has now is not the cluster's")
			}
			if err := answering.Err(); err != nil || culprit.Answering() != answering {
				t.Errorf("what begins after the finding ends: %v", err)
			}
			c.Write(register("web", "e", time.Minute))
			c.AwaitSame()
			// After a restart from its own disk the state is right.
			culprit.Stop()
			c.AwaitReady(c.Start(culprit.ID, store.Formation{}))
			c.AwaitSame()
		})
	}
}

// heldChecks delays a node's check requests until it has recorded another mark.
type heldChecks struct {
	store.Peers
	node func() *storetest.Node
	hold *atomic.Bool
}

func (p heldChecks) Check(ctx context.Context, target store.Target, req store.CheckRequest) (store.CheckResponse, error) {
	if p.hold.Load() {
		if _, err := p.node().Machine().WaitMark(ctx, req.Index); err != nil {
			return store.CheckResponse{}, err
		}
	}
	return p.Peers.Check(ctx, target, req)
}

// Marks of the wrong state do not count against the state that replaced it.
func TestMarksOfTheReplacedStateDoNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, checkOften)
		var hold atomic.Bool
		var culprit *storetest.Node
		c.Together(3, func(cfg *store.Config) {
			if cfg.ID == "n1" {
				cfg.Peers = heldChecks{Peers: c.Peers(cfg.BindAdvertise), node: func() *storetest.Node { return culprit }, hold: &hold}
			}
		})
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame()
		culprit = c.Node("n1")
		if c.Leader().ID == "n1" {
			if err := culprit.Transfer(c.Context(), "n2"); err != nil {
				t.Fatal(err)
			}
			c.LeaderOf("n2", "n3")
		}
		before := culprit.Metrics().Wrong
		hold.Store(true)
		if err := culprit.Corrupt(register("web", "ghost", time.Minute)); err != nil {
			t.Fatal(err)
		}
		c.Await("the node to find its state wrong", func() bool { // entries are applied meanwhile
			c.Write(register("web", "b", time.Minute))
			return culprit.Metrics().Wrong > before
		})
		hold.Store(false)
		c.Await("the node to answer again", func() bool { return culprit.Metrics().Reinstalls > 0 })
		agreed := culprit.Metrics().Agreed
		c.Await("a comparison of the new state", func() bool {
			c.Write(register("web", "c", time.Minute))
			return culprit.Metrics().Agreed > agreed
		})
		if n := culprit.Metrics().Reinstalls; n != 1 {
			t.Errorf("reinstalled %d times", n)
		}
	})
}

// Without check entries a wrong state is not found.
func TestNoChecksFindNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, func(cfg *store.Config) { cfg.CheckInterval = -1 })
		c.Three()
		bad := follower(c)
		if err := bad.Corrupt(register("web", "ghost", time.Minute)); err != nil {
			t.Fatal(err)
		}
		r := c.Write(register("web", "b", time.Minute))
		for _, n := range c.Nodes() {
			if _, err := n.WaitIndex(c.Context(), r.Index); err != nil {
				t.Fatal(err)
			}
		}
		if mark := bad.Machine().LastMark(); mark.Index != 0 || bad.Diverged() != nil {
			t.Errorf("mark %v, %v", mark, bad.Diverged())
		}
	})
}

// A check entry follows the last entry, and an idle cluster writes no more.
func TestIdleClusterWritesNoChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, checkOften)
		c.Three()
		c.Write(register("web", "a", time.Minute))
		c.AwaitKnown()
		leader := c.Leader()
		idle := func() {
			t.Helper()
			timer := time.NewTimer(20 * 50 * time.Millisecond)
			defer timer.Stop()
			<-timer.C
		}
		idle() // two checks of the last entry
		mark := leader.Machine().LastMark()
		if mark.Index != leader.State().Index() && leader.IsLeader() {
			t.Errorf("mark %v at index %d: no check of the last entry", mark, leader.State().Index())
		}
		idle()
		if now := leader.Machine().LastMark(); now != mark && leader.IsLeader() {
			t.Errorf("mark %v became %v with nothing in between", mark, now)
		}
	})
}

// Two nodes have no majority: both continue and report the difference.
func TestTieIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, checkOften)
		c.Together(2)
		c.Write(register("web", "a", time.Minute))
		if err := follower(c).Corrupt(register("web", "ghost", time.Minute)); err != nil {
			t.Fatal(err)
		}
		c.Write(register("web", "b", time.Minute))
		c.Await("both to report the difference", func() bool {
			for _, n := range c.Nodes() {
				if a := n.Status().Alarms; len(a) != 1 || !strings.Contains(a[0], "no majority") {
					return false
				}
			}
			return true
		})
		for _, n := range c.Nodes() {
			if err := n.Serving(); err != nil {
				t.Errorf("%s: %v", n.ID, err)
			}
		}
	})
}

// otherRings changes the digests of rings in check responses, until the state is
// requested.
type otherRings struct {
	store.Peers
	active *atomic.Bool
}

func (p otherRings) Check(ctx context.Context, target store.Target, req store.CheckRequest) (store.CheckResponse, error) {
	a, err := p.Peers.Check(ctx, target, req)
	if p.active.Load() {
		for i := range a.Rings {
			a.Rings[i].Digest++
		}
	}
	return a, err
}

func (p otherRings) State(ctx context.Context, node store.Target, atLeast uint64) (io.ReadCloser, error) {
	p.active.Store(false)
	return p.Peers.State(ctx, node, atLeast)
}

// A ring that differs from the others' is found although the states agree.
func TestWrongRingIsFoundAndReinstalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, checkOften)
		active := &atomic.Bool{}
		c.Together(3, func(cfg *store.Config) {
			if cfg.ID == "n1" {
				cfg.Peers = otherRings{Peers: c.Peers(cfg.BindAdvertise), active: active}
			}
		})
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame() // all have the ring of web
		active.Store(true)
		c.Write(register("other", "b", time.Minute))
		n := c.Node("n1")
		c.Await("n1 to request another's state", func() bool { return !active.Load() })
		c.Await("n1 to answer again", func() bool { return n.Serving() == nil })
		c.Write(register("web", "c", time.Minute))
		c.AwaitSame()
	})
}

// damage changes member a of web in memory, once no ring is built from it.
func damage(c *storetest.Cluster, n *storetest.Node) {
	c.Await("the rings", func() bool { return n.Rings().Stats().Pending == 0 })
	member(n.State(), "web", "a").Addr = "elsewhere:1"
}

// Corrupted memory is found without the other nodes.
func TestDamagedMemoryIsFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame()
		n := follower(c)
		damage(c, n)
		n.Scrub()
		c.Await("the node to answer again", func() bool { return n.Serving() == nil && member(n.State(), "web", "a").Addr == "a:1" })
		c.AwaitSame()
	})
}

// The only node of a cluster fails, and rebuilds its state when it starts again.
func TestDamagedMemoryEndsASingleNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		c.Write(register("web", "a", time.Minute))
		damage(c, n)
		n.Scrub()
		awaitEnd(t, c, n)
		if err := n.Failure(); !errors.Is(err, store.ErrDiverged) || !strings.Contains(err.Error(), "start it again") {
			t.Errorf("failure: %v", err)
		}
		n.Kill()
		n = c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		if m := member(n.State(), "web", "a"); m == nil || m.Addr != "a:1" {
			t.Errorf("after the restart: %+v", m)
		}
	})
}

// A node that lags refuses to send its state within peerTimeout, so that the caller tries
// another node.
func TestLaggingNodeSendsNoState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := n.WriteState(ctx, n.State().Index()+1000, &bytes.Buffer{}); err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// A node whose state is wrong again and again fails.
func TestTooManyReinstallationsEndTheNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame()
		n := follower(c)
		for range store.MaxReinstalls + 1 {
			c.Await("the node to answer", func() bool { return n.Serving() == nil })
			damage(c, n)
			n.Scrub()
		}
		awaitEnd(t, c, n)
		if err := n.Failure(); !strings.Contains(err.Error(), "memory and the processor") {
			t.Errorf("failure: %v", err)
		}
		n.Kill()
	})
}
