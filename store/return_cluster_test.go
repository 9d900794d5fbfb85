package store_test

import (
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
			cfg.DialRaft = func(addr string, timeout time.Duration) (net.Conn, error) {
				if addr == storetest.BindOf("n3") {
					dials.Add(1)
				}
				return c.Net.Dial(bind, addr, timeout)
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
