package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// old makes a node that supports level 1 only, as 0.1.0 does.
func old(c *store.Config) { c.FeatureLevel, c.Version = 1, "0.1.0" }

func firstToken() *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_CreateToken{CreateToken: &fsmpb.CreateToken{First: true, Token: &fsmpb.Token{
		Id: make([]byte, fsm.TokenIDSize), Name: "root", Hash: make([]byte, fsm.TokenHashSize),
		Grants: []*fsmpb.Grant{{Rights: uint32(fsm.Discover | fsm.Register | fsm.Operate | fsm.Admin)}},
	}}}}
}

// upgrade restarts a node with the newest level.
func upgrade(c *storetest.Cluster, n *storetest.Node, edit ...func(*store.Config)) *storetest.Node {
	n.Stop()
	n = c.Start(n.ID, store.Formation{}, edit...)
	c.AwaitReady(n)
	return n
}

func wantLevelError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if !errors.Is(err, fsm.ErrFeatureLevel) {
		t.Errorf("%v, want a LevelError", err)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v\ndoes not contain %q", err, text)
		}
	}
}

func TestNewClusterHasTheNewestLevel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		if got := c.Leader().FeatureLevel(); got != fsm.NewestLevel {
			t.Errorf("level %d", got)
		}
		c.Write(firstToken())
		c.AwaitSame()
	})
}

// A cluster of mixed versions stays at the level of the oldest, refuses what is of a
// later one before the log, and is raised when all nodes support it.
func TestFeatureLevel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three(old)
		c.AwaitKnown()
		for _, id := range []string{"n1", "n2"} {
			upgrade(c, c.Node(id))
		}
		if c.Leader().ID == "n3" {
			if err := c.Leader().Transfer(c.Context(), "n1"); err != nil {
				t.Fatal(err)
			}
		}
		c.Await("an upgraded leader", func() bool { n := c.Leader(); return n != nil && n.ID != "n3" })
		leader := c.Leader()
		before := leader.Status().CommitIndex
		_, err := leader.Write(c.Context(), firstToken())
		wantLevelError(t, err, "create token needs level 2, the cluster is at 1", "held back by n3 (version 0.1.0, level 1)")
		_, err = leader.RaiseFeatureLevel(c.Context(), 0)
		wantLevelError(t, err, "held back by n3 (version 0.1.0, level 1)")
		if _, err := leader.RaiseFeatureLevel(c.Context(), fsm.NewestLevel+1); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("to an unknown level: %v", err)
		}
		if after := leader.Status().CommitIndex; after != before {
			t.Errorf("the refused calls wrote to the log: index %d, before %d", after, before)
		}

		c.Node("n3").Kill()
		_, err = leader.RaiseFeatureLevel(c.Context(), 0)
		wantLevelError(t, err, "held back by n3 (does not answer)")
		c.AwaitReady(c.Start("n3", store.Formation{}))
		leader = c.Leader()
		_, err = leader.Write(c.Context(), firstToken())
		wantLevelError(t, err, "all nodes support it")
		for range 2 { // idempotent
			if level, err := leader.RaiseFeatureLevel(c.Context(), 0); err != nil || level != fsm.NewestLevel {
				t.Fatalf("level %d: %v", level, err)
			}
		}
		if _, err := leader.Write(c.Context(), firstToken()); err != nil {
			t.Error(err)
		}
		c.AwaitSame()
	})
}

// A node that does not support the cluster's level is refused when it starts with data
// of that level, and when it joins.
func TestNodeThatIsTooOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitKnown()
		n := follower(c)
		path := filepath.Join(n.Dir, "node.json")
		data, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(data), `"format": 3`) { // which 0.1.0 refuses
			t.Fatalf("%s: %v", data, err)
		}
		n.Stop()
		if _, err := c.TryOpen(n.ID, old); !errors.Is(err, store.ErrDataDir) || !strings.Contains(err.Error(), "feature level 2, and this version supports up to 1") {
			t.Errorf("starts: %v", err)
		}
		late := c.Open("n4", old)
		err = late.Store.Form(c.Context(), store.Formation{Peers: binds("n1", "n2", "n3"), JoinTimeout: storetest.Patience})
		if !errors.Is(err, store.ErrMembership) || !strings.Contains(err.Error(), "supports feature level 1, and the cluster is at level 2 (registry 0.2.0 or newer)") {
			t.Errorf("joins: %v", err)
		}
	})
}

// A node that joined, and one that was down when the level was raised, keep it on disk.
func TestLevelIsSaved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three(old)
		for _, n := range c.Nodes() {
			upgrade(c, n)
		}
		if _, err := c.Leader().RaiseFeatureLevel(c.Context(), 0); err != nil {
			t.Fatal(err)
		}
		c.AwaitReady(c.Start("n4", store.Formation{Peers: binds("n1"), JoinTimeout: storetest.Patience}))
		for _, n := range c.Nodes() {
			c.Await("the level of "+n.ID+" on disk", func() bool {
				data, err := os.ReadFile(filepath.Join(n.Dir, "node.json"))
				return err == nil && strings.Contains(string(data), `"format": 3`)
			})
		}
	})
}

// A node that joins has the level on disk before it has anything of the log, in which
// 0.1.0 would overlook it.
func TestLevelIsSavedBeforeTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		n := c.Open("n4", func(cfg *store.Config) { cfg.Peers = c.UncutPeers(cfg.BindAdvertise) })
		for _, id := range []string{"n1", "n2", "n3"} {
			c.Net.Cut(storetest.BindOf(id), storetest.BindOf("n4"))
		}
		n.Form(store.Formation{Peers: binds("n1"), JoinTimeout: storetest.Patience})
		if data, err := os.ReadFile(filepath.Join(n.Dir, "node.json")); err != nil || !strings.Contains(string(data), `"format": 3`) || n.State().Index() > 0 {
			t.Errorf("%s at index %d, %v", data, n.State().Index(), err)
		}
	})
}

// Founders of several versions form a cluster at the level of the oldest.
func TestFoundersOfTwoVersions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Together(3, func(cfg *store.Config) {
			if cfg.ID == "n2" {
				old(cfg)
			}
		})
		if got := c.Leader().FeatureLevel(); got != 1 {
			t.Errorf("level %d", got)
		}
	})
}

// A leader does not raise the level above its own.
func TestOldLeaderRaisesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Together(1, old)
		_, err := c.Leader().RaiseFeatureLevel(c.Context(), 2)
		wantLevelError(t, err, "held back by n1 (version 0.1.0, level 1)")
	})
}

// helloPeers changes what others answer to Hello.
type helloPeers struct {
	store.Peers
	change func(*store.Hello)
}

func (p *helloPeers) Hello(ctx context.Context, bind string) (store.Hello, error) {
	h, err := p.Peers.Hello(ctx, bind)
	if p.change != nil {
		p.change(&h)
	}
	return h, err
}

// While the leader asks which level the nodes support, nobody joins; and an address may be
// another node's by now.
func TestLevelIsThatOfAllNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		peers := map[string]*helloPeers{}
		c.Three(old)
		for _, n := range c.Nodes() {
			upgrade(c, n, func(cfg *store.Config) {
				peers[cfg.ID] = &helloPeers{Peers: c.Peers(cfg.BindAdvertise)}
				cfg.Peers = peers[cfg.ID]
			})
		}
		c.AwaitKnown()
		leader := c.Leader()
		for _, change := range []func(*store.Hello){
			func(h *store.Hello) { h.ID = "n9" },
			func(h *store.Hello) { h.ClusterID = "another" },
		} {
			peers[leader.ID].change = change
			_, err := leader.RaiseFeatureLevel(c.Context(), 0)
			wantLevelError(t, err, "another node answers at its address")
		}
		late := c.Open("n4", old)
		hello, joined := late.Self(), make(chan error, 1)
		var asked atomic.Bool
		peers[leader.ID].change = func(*store.Hello) {
			if asked.CompareAndSwap(false, true) {
				go func() { joined <- leader.AdmitNode(c.Context(), hello) }()
				synctest.Wait() // it is under way, or waits
			}
		}
		if level, err := leader.RaiseFeatureLevel(c.Context(), 0); err != nil || level != fsm.NewestLevel {
			t.Errorf("level %d, %v", level, err)
		}
		if !asked.Load() {
			t.Fatal("the nodes were not asked")
		}
		if err := <-joined; !errors.Is(err, store.ErrMembership) {
			t.Errorf("a node of 0.1.0 joins: %v", err)
		}
	})
}
