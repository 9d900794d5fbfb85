package store_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// deposed returns a leader that is cut off and still believes that it leads, and the
// one that the others elected.
func deposed(t *testing.T, edit ...func(*storetest.Cluster, *store.Config)) (c *storetest.Cluster, old, next *storetest.Node) {
	c = storetest.New(t, func(cfg *store.Config) {
		if cfg.ID == "n1" {
			slowElections(cfg)
			for _, f := range edit {
				f(c, cfg)
			}
		}
	})
	old = c.Three()[0]
	if first := c.Leader(); first.ID != old.ID {
		if err := first.Transfer(c.Context(), old.ID); err != nil {
			t.Fatal(err)
		}
	}
	c.LeaderOf(old.ID)
	c.Write(register("web", "a", time.Minute))
	c.AwaitSame()
	c.Net.Isolate(old.Bind)
	next = c.LeaderOf("n2", "n3")
	if !old.IsLeader() {
		t.Fatal("the old leader has already stepped down")
	}
	return c, old, next
}

func TestDeposedLeaderAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, old, next := deposed(t)
		if _, err := next.Write(c.Context(), setGroup("web", 64)); err != nil {
			t.Fatal(err)
		}
		lease := old.State().Group("web").Member("a").LeaseID
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if index, err := old.ReadIndex(ctx); err == nil {
				t.Errorf("read index %d", index)
			}
		})
		all.Go(func() {
			if _, _, err := old.Renew(ctx, []uint64{lease}, nil); err == nil {
				t.Error("a renewal was acknowledged")
			}
		})
		all.Go(func() {
			if level, err := old.RaiseFeatureLevel(ctx, 0); err == nil {
				t.Errorf("the feature level was acknowledged: %d", level)
			}
		})
		all.Go(func() {
			if _, err := old.Write(ctx, setGroup("web", 128)); !errors.Is(err, store.ErrOutcomeUnknown) {
				t.Errorf("a write: %v, want ErrOutcomeUnknown", err)
			}
		})
		all.Wait()
		if !old.IsLeader() {
			t.Error("the old leader stepped down: the test shows nothing")
		}
		c.Net.Heal()
		c.AwaitSame()
		if k := old.State().Group("web").Params.VirtualNodes; k != 64 {
			t.Errorf("%d virtual nodes: the deposed leader's write took effect", k)
		}
	})
}

// The same if the old leader can still call the others: they answer with a newer term.
func TestNewerTermIsNoConfirmation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := &termCount{}
		c, old, _ := deposed(t, func(c *storetest.Cluster, cfg *store.Config) {
			calls.Peers = c.UncutPeers(cfg.BindAdvertise)
			cfg.Peers = calls
		})
		before := calls.n.Load()
		if index, err := old.ReadIndex(c.Context()); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("read index %d, %v, want ErrNotLeader", index, err)
		}
		if calls.n.Load() < before+2 {
			t.Error("the others were not called: the test shows nothing")
		}
	})
}

// The same if only the direction to the old leader is cut: its heartbeats prevent an
// election until it steps down.
func TestHalfCutLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		old := c.Leader()
		for _, n := range c.Nodes() {
			c.Net.Cut(n.Bind, old.Bind)
		}
		next := c.LeaderOf(others(c, old)...)
		if _, err := next.Write(c.Context(), setGroup("web", 64)); err != nil {
			t.Error(err)
		}
		c.Await("the old leader to step down", func() bool { return !old.IsLeader() })
		c.Net.Heal()
		c.AwaitSame()
	})
}

// termCount counts calls of Term.
type termCount struct {
	store.Peers
	n atomic.Int32
}

func (p *termCount) Term(ctx context.Context, node store.Target) (uint64, error) {
	p.n.Add(1)
	return p.Peers.Term(ctx, node)
}
