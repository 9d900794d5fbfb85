package store_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// A node gets what it missed soon after its return, however long it was away.
func TestReturnedNodeCatchesUpAtOnce(t *testing.T) {
	for _, tc := range []struct {
		name     string
		leave    func(c *storetest.Cluster, n *storetest.Node)
		comeBack func(c *storetest.Cluster, n *storetest.Node) *storetest.Node
	}{
		{
			"cut off",
			func(c *storetest.Cluster, n *storetest.Node) { c.Net.Isolate(n.Bind) },
			func(c *storetest.Cluster, n *storetest.Node) *storetest.Node { c.Net.Join(n.Bind); return n },
		},
		{
			"stopped",
			func(_ *storetest.Cluster, n *storetest.Node) { n.Stop() },
			func(c *storetest.Cluster, n *storetest.Node) *storetest.Node { return c.Open(n.ID) },
		},
	} {
		for _, away := range []time.Duration{6 * time.Second, time.Minute} {
			t.Run(fmt.Sprint(tc.name, " for ", away), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := storetest.New(t)
					c.Three()
					node := follower(c)
					tc.leave(c, node)
					index := c.Write(register("web", "missed", time.Hour)).Index
					elapse(t, time.Now().Add(away))
					began := time.Now()
					node = tc.comeBack(c, node)
					if _, err := node.Machine().WaitIndex(c.Context(), index); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(began); took > 3*time.Second {
						t.Errorf("has what it missed %v after its return", took)
					}
				})
			})
		}
	}
}

// The leader dials a node that is down until the node was removed.
func TestRemovedNodeIsNotDialed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64 // of n3
		var c *storetest.Cluster
		c = storetest.New(t, func(cfg *store.Config) {
			bind := cfg.BindAdvertise
			cfg.DialRaft = func(ctx context.Context, addr string) (net.Conn, error) {
				if addr == storetest.BindOf("n3") {
					dials.Add(1)
				}
				return c.Net.DialContext(ctx, bind, addr)
			}
		})
		c.Three()
		leader := leading(t, c, "n1")
		c.Node("n3").Kill()
		c.Write(setGroup("web", 64))
		elapse(t, time.Now().Add(10*time.Second))
		if dials.Swap(0) == 0 {
			t.Fatal("no dial: the test shows nothing")
		}
		if err := leader.RemoveNode(c.Context(), "n3"); err != nil {
			t.Fatal(err)
		}
		elapse(t, time.Now().Add(10*time.Second)) // the attempts under way
		dials.Store(0)
		elapse(t, time.Now().Add(time.Minute))
		if n := dials.Load(); n != 0 {
			t.Errorf("%d dials to a removed node within a minute", n)
		}
	})
}

// Close does not wait for a message to a node that is cut off, nor for a dial.
func TestCloseWithANodeCutOff(t *testing.T) {
	for name, silent := range map[string]time.Duration{"while it waits for answers": 0, "while it dials": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const timeout = 10 * time.Second
				c := storetest.New(t, func(cfg *store.Config) { cfg.ElectionTimeout = timeout })
				c.Three()
				leader := leading(t, c, "n1")
				c.AwaitSame()
				c.Net.Isolate(storetest.BindOf("n3"))
				for i := range 10 { // so that messages wait for answers
					c.Write(setGroup(fmt.Sprintf("web-%d", i), 64))
				}
				elapse(t, time.Now().Add(silent))
				began := time.Now()
				leader.Stop()
				if took := time.Since(began); took > timeout/2 {
					t.Errorf("it took %v", took)
				}
				c.Net.Heal()
			})
		})
	}
}
