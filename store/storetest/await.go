package storetest

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/store"
)

func dialer(n *Network, from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) { return n.DialContext(ctx, from, to) }
}

// Context ends with the test or after Patience.
func (c *Cluster) Context() context.Context {
	ctx, cancel := context.WithTimeout(c.tb.Context(), Patience)
	c.tb.Cleanup(cancel)
	return ctx
}

// Await polls until ok returns true. It is for conditions without an event, such as a
// role or a configuration.
func (c *Cluster) Await(what string, ok func() bool) {
	c.tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(Patience)
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			for _, n := range c.Nodes() {
				c.tb.Logf("%s: %+v", n.ID, n.Status())
			}
			c.tb.Fatalf("waited %s for %s", Patience, what)
		}
	}
}

// Leader waits for a leader that a quorum confirms.
func (c *Cluster) Leader() *Node {
	c.tb.Helper()
	return c.LeaderOf()
}

// LeaderOf waits until one of the named nodes leads, and a quorum confirms it.
func (c *Cluster) LeaderOf(ids ...string) (leader *Node) {
	c.tb.Helper()
	c.Await("a leader", func() bool {
		for _, n := range c.Nodes() {
			if !n.IsLeader() || len(ids) > 0 && !slices.Contains(ids, n.ID) {
				continue
			}
			ctx, cancel := context.WithTimeout(c.tb.Context(), time.Second)
			_, err := n.ReadIndex(ctx)
			cancel()
			if err == nil {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// AwaitReady waits until the node answers.
func (c *Cluster) AwaitReady(n *Node) {
	c.tb.Helper()
	select {
	case <-n.Ready():
	case <-n.Failed():
		c.tb.Fatalf("%s failed: %v", n.ID, n.Failure())
	case <-c.Context().Done():
		c.tb.Fatalf("%s is not ready: %+v", n.ID, n.Status())
	}
}

// AwaitVoters waits until exactly the named nodes are the voters in the configuration
// of each of them that is up.
func (c *Cluster) AwaitVoters(ids ...string) {
	c.tb.Helper()
	slices.Sort(ids)
	c.Await("the voters", func() bool {
		for _, n := range c.Nodes() {
			if slices.Contains(ids, n.ID) && !slices.Equal(Voters(n.Store), ids) {
				return false
			}
		}
		return true
	})
}

// AwaitKnown waits until the metadata of all nodes that are up is recorded on each.
func (c *Cluster) AwaitKnown() {
	c.tb.Helper()
	c.Await("all nodes to be known", func() bool {
		for _, n := range c.Nodes() {
			for _, of := range c.Nodes() {
				self := of.Self()
				if known := n.State().Node(of.ID); known == nil || known.Incarnation != self.Incarnation || known.Bind != self.Bind {
					return false
				}
			}
		}
		return true
	})
}

// Voters returns the ids of the voters in a node's configuration, in order.
func Voters(s *store.Store) (ids []string) {
	for _, server := range s.Status().Configuration {
		if server.Suffrage == raft.Voter {
			ids = append(ids, string(server.ID))
		}
	}
	slices.Sort(ids)
	return ids
}

// Write commits a command on the current leader, and retries until that succeeds.
func (c *Cluster) Write(cmd *fsmpb.Command) fsm.Result {
	c.tb.Helper()
	var r fsm.Result
	c.Await("a write", func() bool {
		n := c.Leader()
		var err error
		r, err = n.Write(c.Context(), cmd)
		return err == nil
	})
	return r
}

// AwaitSame waits until all nodes that are up have applied what the leader has
// committed, and fails the test unless they have the same state and rings.
func (c *Cluster) AwaitSame() {
	c.tb.Helper()
	var index uint64
	c.Await("the leader's index", func() bool {
		var err error
		index, err = c.Leader().ReadIndex(c.Context())
		return err == nil // else another node leads now
	})
	states := make(map[string]*fsm.State)
	var first *fsm.State
	c.Await("all nodes at one index", func() bool {
		first = c.Nodes()[0].State()
		for _, n := range c.Nodes() {
			s := n.State()
			if s.Index() < index || s.Index() != first.Index() {
				return false
			}
			states[n.ID] = s
		}
		return true
	})
	digests := make(map[string]uint64)
	for _, n := range c.Nodes() {
		s := states[n.ID]
		if s.Digest() != first.Digest() {
			c.tb.Errorf("at index %d %s has digest %016x, another node %016x", s.Index(), n.ID, s.Digest(), first.Digest())
		}
		for g := range s.Groups {
			v, _, err := n.Rings().Get(c.Context(), s, g, rings.Freshness{MinIndex: s.Index()})
			if err != nil {
				c.tb.Fatalf("%s: ring of %q: %v", n.ID, g.Name, err)
			}
			if was, ok := digests[g.Name]; ok && was != v.Ring.Digest() || v.Fingerprint != g.Fingerprint() {
				c.tb.Errorf("%s: ring of %q differs from another node's, or from its group", n.ID, g.Name)
			}
			digests[g.Name] = v.Ring.Digest()
		}
	}
}
