package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// leading makes a node lead.
func leading(t *testing.T, c *storetest.Cluster, id string) *storetest.Node {
	t.Helper()
	if first := c.Leader(); first.ID != id {
		if err := first.Transfer(c.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	return c.LeaderOf(id)
}

// A node that was down during changes of members is needed for the majority, and the
// only node that can lead is not in its configuration.
func TestNodeElectsALeaderOutsideItsConfiguration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		n1 := leading(t, c, "n1")
		c.AwaitKnown()
		c.Node("n3").Kill()
		c.Start("n4", store.Formation{Peers: binds("n1", "n2"), JoinTimeout: storetest.Patience})
		c.AwaitVoters("n1", "n2", "n3", "n4")
		if err := n1.RemoveNode(c.Context(), "n2"); err != nil {
			t.Fatal(err)
		}
		c.Node("n2").Kill()
		n1.Kill()
		c.Start("n3", store.Formation{})
		c.LeaderOf("n4")
		c.Write(register("web", "a", time.Minute))
		c.AwaitVoters("n1", "n3", "n4")
		c.AwaitSame()
	})
}

// The configuration after the removal would have no running majority. It would be in
// the leader's log all the same, and no leader could be elected.
func TestRemovalThatLeavesNoMajorityIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader := leading(t, c, "n1")
		c.AwaitKnown()
		c.Node("n3").Kill()
		err := leader.RemoveNode(c.Context(), "n2")
		if !errors.Is(err, store.ErrMembership) || !strings.Contains(err.Error(), "would leave the voters n1, n3") || !strings.Contains(err.Error(), "n3 does not answer") {
			t.Errorf("got %v, want ErrMembership that names what is left, and n3", err)
		}
		c.Write(register("web", "a", time.Minute)) // the cluster goes on
		c.AwaitVoters("n1", "n2", "n3")
		c.Start("n3", store.Formation{})
		if err := c.Leader().RemoveNode(c.Context(), others(c, c.Leader())[0]); err != nil {
			t.Errorf("with all three: %v", err)
		}
		c.Write(register("web", "b", time.Minute))
	})
}

// No flag has to force a removal: a node that is down can always be removed first.
func TestNodesThatAreDownAreRemovedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Together(5)
		leader := leading(t, c, "n1")
		c.AwaitKnown()
		c.Node("n4").Kill()
		c.Node("n5").Kill()
		for _, id := range []string{"n3", "n4", "n5", "n3", "n2"} {
			err := leader.RemoveNode(c.Context(), id)
			if refused := errors.Is(err, store.ErrMembership); refused != (len(storetest.Voters(leader.Store)) == 5 && id == "n3") || err != nil && !refused {
				t.Errorf("remove %s: %v", id, err)
			}
		}
		c.AwaitVoters("n1")
		c.Write(register("web", "a", time.Minute))
	})
}

// appliedPeers reports calls of Applied.
type appliedPeers struct {
	store.Peers
	called chan string
}

func (p appliedPeers) Applied(ctx context.Context, node store.Target) (uint64, error) {
	index, err := p.Peers.Applied(ctx, node)
	select {
	case p.called <- node.ID:
	default:
	}
	return index, err
}

// A change waits for a voter that answers and is behind.
func TestChangeWaitsForAVoterThatIsBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		called := make(chan string)
		c := storetest.New(t)
		c.Together(4, func(cfg *store.Config) { cfg.Peers = appliedPeers{c.UncutPeers(cfg.BindAdvertise), called} })
		leader := leading(t, c, "n1")
		c.AwaitKnown()
		c.Net.Cut(leader.Bind, storetest.BindOf("n2")) // entries do not reach it, calls do
		written := c.Write(register("web", "a", time.Minute))
		removed := make(chan error, 1)
		go func() { removed <- leader.RemoveNode(c.Context(), "n4") }()
		for again := 0; again < 3; { // until it has polled several times
			select {
			case id := <-called:
				if id == "n2" {
					again++
				}
			case err := <-removed:
				t.Fatalf("it does not wait: %v", err)
			}
		}
		ctx, cancel := context.WithTimeout(c.Context(), 100*time.Millisecond)
		defer cancel()
		if err := leader.RemoveNode(ctx, "n3"); !errors.Is(err, store.ErrBusy) {
			t.Errorf("a second change that does not wait for the first: %v, want ErrBusy", err)
		}
		c.Net.Heal()
		if err := <-removed; err != nil {
			t.Fatal(err)
		}
		if at := c.Node("n2").State().Index(); at < written.Index {
			t.Errorf("n2 is at %d, and entry %d was written before", at, written.Index)
		}
		c.AwaitVoters("n1", "n2", "n3")
	})
}

// churn is a cluster whose members change while nodes are down.
type churn struct {
	t    *testing.T
	c    *storetest.Cluster
	rand *rand.Rand

	voters []string // of the last acknowledged configuration
	maybe  []string // joined nodes that may be voters by now
	down   []string
	next   int

	forming sync.WaitGroup
}

// hasMajority reports whether every configuration that may be current has a running majority.
func (h *churn) hasMajority() bool {
	for with := range 1 << len(h.maybe) {
		all := slices.Clone(h.voters)
		for i, id := range h.maybe {
			if with>>i&1 == 1 {
				all = append(all, id)
			}
		}
		up := slices.DeleteFunc(slices.Clone(all), func(id string) bool { return slices.Contains(h.down, id) })
		if len(up) <= len(all)/2 {
			return false
		}
	}
	return true
}

func (h *churn) kill(id string) {
	h.t.Logf("kill %s", id)
	h.c.Node(id).Kill()
	h.down = append(h.down, id)
}

func (h *churn) start(id string) {
	h.t.Logf("start %s", id)
	h.down = slices.DeleteFunc(h.down, func(other string) bool { return other == id })
	n := h.c.Open(id)
	peers := binds(h.known()...)
	h.forming.Go(func() { // a node that was killed right after its join has to join again
		if err := n.Store.Form(h.t.Context(), store.Formation{Peers: peers}); err != nil {
			h.t.Logf("form %s: %v", id, err)
		}
	})
}

func (h *churn) known() []string { return slices.Concat(h.voters, h.maybe) }

func (h *churn) any(of []string) string { return of[h.rand.IntN(len(of))] }

func (h *churn) up() []string {
	return slices.DeleteFunc(h.known(), func(id string) bool { return slices.Contains(h.down, id) })
}

// disturb kills a running node and starts others, and keeps a majority running.
func (h *churn) disturb() {
	if up := h.up(); len(up) > 0 && h.rand.IntN(3) > 0 {
		h.kill(h.any(up))
	}
	if len(h.down) > 0 && h.rand.IntN(4) == 0 {
		h.start(h.any(h.down))
	}
	for !h.hasMajority() {
		h.start(h.any(h.down))
	}
}

// join adds a node and, in two of three cases, waits until it is a voter.
func (h *churn) join() {
	h.next++
	id := fmt.Sprintf("n%d", h.next)
	h.t.Logf("join %s to %v, down %v", id, h.known(), h.down)
	n := h.c.Open(id)
	h.maybe = append(h.maybe, id)
	if err := n.Store.Form(h.c.Context(), store.Formation{Peers: binds(h.up()...)}); err != nil {
		h.t.Fatalf("join: %v", err)
	}
	if h.rand.IntN(3) > 0 {
		h.awaitAllVoters()
	}
}

// awaitAllVoters waits until all joined nodes are voters.
func (h *churn) awaitAllVoters() {
	for _, id := range slices.Clone(h.maybe) {
		if slices.Contains(h.down, id) {
			h.start(id)
		}
	}
	h.c.Await("the voters", func() bool {
		voters := storetest.Voters(h.c.Leader().Store)
		return !slices.ContainsFunc(h.maybe, func(id string) bool { return !slices.Contains(voters, id) })
	})
	h.voters, h.maybe = h.known(), nil
}

// remove removes a node, until that is done or refused.
func (h *churn) remove() {
	h.awaitAllVoters()
	id := h.any(h.voters)
	for range 20 {
		leader := h.c.Leader()
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		err := leader.RemoveNode(ctx, id)
		cancel()
		h.t.Logf("remove %s from %v by %s, down %v: %v", id, h.voters, leader.ID, h.down, err)
		switch {
		case err == nil || errors.Is(err, store.ErrUnknownNode):
			h.voters = slices.DeleteFunc(h.voters, func(other string) bool { return other == id })
			h.down = slices.DeleteFunc(h.down, func(other string) bool { return other == id })
			h.c.Node(id).Kill()
			return
		case errors.Is(err, store.ErrMembership):
			return
		}
	}
	h.t.Fatalf("%s could not be removed", id)
}

// Whatever changes were acknowledged and whichever nodes were down: while a majority of
// the voters runs, there is a leader.
func TestRandomChangesKeepALeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rnd := seed.Rand(t)
		c := storetest.New(t)
		c.Three()
		c.AwaitKnown()
		h := &churn{t: t, c: c, rand: rnd, voters: []string{"n1", "n2", "n3"}, next: 3}
		t.Cleanup(h.forming.Wait)
		steps := 20
		if !storetest.Long() {
			steps = 8
		}
		for range steps {
			h.disturb()
			c.Leader()
			if len(h.known()) <= 3 || len(h.known()) < 6 && rnd.IntN(2) == 0 {
				h.join()
			} else {
				h.remove()
			}
			h.disturb()
			c.Leader()
		}
		for len(h.down) > 0 {
			h.start(h.down[0])
		}
		c.AwaitSame()
	})
}
