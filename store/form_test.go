package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

func binds(ids ...string) (out []string) {
	for _, id := range ids {
		out = append(out, storetest.BindOf(id))
	}
	return out
}

// Three nodes form a cluster in every order of starting: each calls the others before
// the next one starts.
func TestExpectInAnyOrder(t *testing.T) {
	t.Parallel()
	orders := [][]string{{"n1", "n2", "n3"}, {"n1", "n3", "n2"}, {"n2", "n1", "n3"}, {"n2", "n3", "n1"}, {"n3", "n1", "n2"}, {"n3", "n2", "n1"}}
	if !storetest.Long() {
		orders = orders[2:3]
	}
	for _, order := range orders {
		t.Run(strings.Join(order, ","), func(t *testing.T) {
			called := make(chan string, 100)
			c := storetest.New(t)
			watch := func(cfg *store.Config) { cfg.Peers = &helloWatch{Peers: c.Peers(cfg.BindAdvertise), called: called} }
			var all sync.WaitGroup
			for _, id := range order {
				n := c.Open(id, watch)
				all.Go(func() { n.Form(store.Formation{Peers: binds("n1", "n2", "n3"), Expect: 3}) })
				<-called
			}
			all.Wait()
			c.AwaitVoters("n1", "n2", "n3")
			c.Write(setGroup("web", 64))
			c.AwaitSame()
			for _, n := range c.Nodes() {
				c.AwaitReady(n)
			}
		})
	}
}

// helloWatch reports calls of Hello.
type helloWatch struct {
	store.Peers
	called chan string
}

func (w *helloWatch) Hello(ctx context.Context, bind string) (store.Hello, error) {
	select {
	case w.called <- bind:
	default:
	}
	return w.Peers.Hello(ctx, bind)
}

// A peer that does not answer may belong to a cluster, or form another one: no cluster
// is formed without it.
func TestExpectWaitsForEveryPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		a, b := c.Open("n1"), c.Open("n2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for _, n := range []*storetest.Node{a, b} {
			all.Go(func() {
				err := n.Store.Form(ctx, store.Formation{Peers: binds("n1", "n2", "n3"), Expect: 2})
				if !errors.Is(err, store.ErrMembership) {
					t.Errorf("%s: %v", n.ID, err)
				}
			})
		}
		all.Wait()
		if a.HasState() || b.HasState() {
			t.Error("a cluster was formed without a peer that may have formed another")
		}
	})
}

func TestExpectRefusals(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		setup func(c *storetest.Cluster)
		form  store.Formation
		says  string
	}{
		{
			"more nodes than expected",
			func(c *storetest.Cluster) { c.Open("n2"); c.Open("n3") },
			store.Formation{Peers: binds("n2", "n3"), Expect: 2}, "3 nodes",
		},
		{
			"a node of another cluster",
			func(c *storetest.Cluster) { c.Open("n2", func(cfg *store.Config) { cfg.Cluster = "other" }) },
			store.Formation{Peers: binds("n2"), Expect: 2}, "-cluster",
		},
		{
			"two nodes of one id",
			func(c *storetest.Cluster) {
				c.Open("n2", func(cfg *store.Config) { cfg.ID, cfg.DataDir = "n1", cfg.DataDir+"-twin" })
			},
			store.Formation{Peers: binds("n2"), Expect: 2}, "-id",
		},
		{
			"joining a cluster of another name",
			func(c *storetest.Cluster) {
				c.Start("n2", store.Formation{}, func(cfg *store.Config) { cfg.Cluster = "other" })
			},
			store.Formation{Peers: binds("n2")}, "cluster",
		},
		{
			"joining a peer that is down",
			func(*storetest.Cluster) {},
			store.Formation{Peers: binds("n2"), JoinTimeout: 300 * time.Millisecond}, "-join-timeout",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := storetest.New(t)
			tc.setup(c)
			n := c.Open("n1")
			err := n.Store.Form(c.Context(), tc.form)
			if !errors.Is(err, store.ErrMembership) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want ErrMembership that says %q", err, tc.says)
			}
			if n.HasState() {
				t.Error("the node has state")
			}
		})
	}
}

// A node with Expect joins an existing cluster of its peers.
func TestExpectJoinsAnExistingCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Together(2)
		c.Start("n3", store.Formation{Peers: binds("n1", "n2", "n3"), Expect: 3})
		c.AwaitVoters("n1", "n2", "n3")
	})
}

// A peer address that is an alias of the node itself does not count.
func TestOwnAliasIsNoPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		alias := func(cfg *store.Config) { cfg.Peers = aliasPeers{c.Peers(cfg.BindAdvertise)} }
		var all sync.WaitGroup
		for _, n := range []*storetest.Node{c.Open("n1", alias), c.Open("n2", alias)} {
			all.Go(func() {
				n.Form(store.Formation{Peers: []string{"alias-of-n1:1", "n2:7370"}, Expect: 2})
			})
		}
		all.Wait()
		c.AwaitVoters("n1", "n2")
	})
}

type aliasPeers struct{ store.Peers }

func (p aliasPeers) Hello(ctx context.Context, bind string) (store.Hello, error) {
	if bind == "alias-of-n1:1" {
		bind = storetest.BindOf("n1")
	}
	return p.Peers.Hello(ctx, bind)
}

// A read replica gets no vote, also after a restart at which it does not know yet how it
// joined, and is told nothing.
func TestReadReplicaGetsNoVote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		replica := func(cfg *store.Config) { cfg.Nonvoter = true }
		c := storetest.New(t)
		n1 := c.Start("n1", store.Formation{})
		n2 := c.Start("n2", store.Formation{Peers: binds("n1"), JoinTimeout: storetest.Patience}, replica)
		c.AwaitReady(n2)
		c.AwaitKnown()
		hello := n2.Self()
		if !hello.Nonvoter {
			t.Error("it does not ask to stay without a vote")
		}
		n2.Kill()
		c.Write(register("web", "a", time.Minute)) // without it
		hello.Nonvoter = false
		if err := c.Leader().AdmitNode(c.Context(), hello); err != nil {
			t.Fatal(err)
		}
		if !n1.State().Node("n2").Nonvoter {
			t.Error("its restart would get it a vote")
		}
		n2 = c.Start("n2", store.Formation{})
		c.AwaitReady(n2)
		c.AwaitSame()
		if st := n2.Status(); st.Voter || st.Role != "nonvoter" || !slices.Equal(storetest.Voters(n1.Store), []string{"n1"}) {
			t.Errorf("%+v, voters %v", st, storetest.Voters(n1.Store))
		}
	})
}

// A read replica founds no cluster, by itself or with others.
func TestReadReplicaFormsNoCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		replica := c.Open("n1", func(cfg *store.Config) { cfg.Nonvoter = true })
		if err := replica.Store.Form(c.Context(), store.Formation{}); !errors.Is(err, store.ErrMembership) || replica.HasState() {
			t.Errorf("alone: %v", err)
		}
		founder := c.Open("n2")
		err := founder.Store.Form(c.Context(), store.Formation{Peers: binds("n1"), Expect: 2})
		if !errors.Is(err, store.ErrMembership) || founder.HasState() {
			t.Errorf("with another: %v", err)
		}
	})
}

func TestInvitation(t *testing.T) {
	t.Parallel()
	for _, nonvoter := range []bool{false, true} {
		name := "voter"
		if nonvoter {
			name = "nonvoter"
		}
		t.Run(name, func(t *testing.T) {
			c := storetest.New(t)
			c.Start("n1", store.Formation{})
			c.Leader()
			n := c.Open("n2")
			formed := make(chan struct{})
			go func() {
				defer close(formed)
				n.Form(store.Formation{Wait: true})
			}()
			if err := n.Invited(c.Context(), storetest.BindOf("n1"), nonvoter); err != nil {
				t.Fatal(err)
			}
			<-formed
			c.AwaitReady(n)
			if !nonvoter {
				c.AwaitVoters("n1", "n2")
			} else if st := n.Status(); st.Voter || st.Role != "nonvoter" {
				t.Errorf("%+v", st)
			}
			if err := n.Invited(c.Context(), storetest.BindOf("n1"), nonvoter); !errors.Is(err, store.ErrMembership) {
				t.Errorf("a second invitation: %v", err)
			}
		})
	}
}
