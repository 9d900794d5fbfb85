package sdk

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// listed waits until the client knows the addresses that the nodes have now.
func (cl *fakeCluster) listed(t *testing.T, c *Client) {
	t.Helper()
	eventually(t, "the client knows all nodes", func() bool {
		known := c.pool.addrs()
		return !slices.ContainsFunc(cl.nodes, func(n *fakeNode) bool { return !slices.Contains(known, n.addr) })
	})
}

// A client outlives the addresses that it was given, whatever it does: the nodes
// move, one after the other, and none tells it when it asks.
func TestClientLearnsWhereNodesMove(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*testing.T, *Client) (works func() bool){
		"calls": func(t *testing.T, c *Client) func() bool {
			works := func() bool { _, err := c.Match(testContext(t), "g", "k"); return err == nil }
			if !works() {
				t.Fatal("no answer")
			}
			return works
		},
		"ring": func(t *testing.T, c *Client) func() bool {
			r := openRing(t, c)
			return func() bool { return r.Age() < time.Second }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeWatched(t, 3)
				cl.write("g", memberIDs(2)...)
				c := cl.client(cl.target(0), fastProgress, WithRefreshInterval(time.Hour))
				works := use(t, c)
				cl.listed(t, c)
				for round := range 2 {
					for i := range cl.nodes {
						cl.move(i)
						cl.listed(t, c)
						eventually(t, "it works", works)
					}
					if n := len(c.pool.addrs()); n > 5 { // the current one may be out of date
						t.Errorf("round %d: knows %v: one was given, and three are there", round, c.pool.addrs())
					}
				}
			})
		})
	}
}

// What a list of nodes does to the addresses that are known.
func TestLearnKeepsWhatWorks(t *testing.T) {
	now := time.Now()
	at := func(p *pool, addr string) *endpoint {
		for _, e := range p.all {
			if e.addr == addr {
				return e
			}
		}
		t.Fatalf("%s is not known", addr)
		return nil
	}
	known := func(p *pool, want string) {
		t.Helper()
		if got := strings.Join(p.addrs(), " "); got != want {
			t.Errorf("knows %s, want %s", got, want)
		}
	}
	p := newPool([]string{"seed:1"})
	p.learn([]string{"seed:1", "b:1", "c:1"})
	known(p, "seed:1 b:1 c:1")
	p.failed(at(p, "seed:1"), now, true)
	p.worked(at(p, "b:1"), now)
	p.worked(at(p, "c:1"), now)
	p.learn([]string{"x:1", "y:1"}) // which nobody has reached yet
	known(p, "seed:1 b:1 c:1 x:1 y:1")
	p.worked(at(p, "x:1"), now)
	p.learn([]string{"x:1", "y:1"})
	known(p, "seed:1 b:1 x:1 y:1") // b is the current one
	if p.home != at(p, "x:1") && p.home != at(p, "y:1") {
		t.Errorf("the home is %s, which is gone", p.home.addr)
	}

	// A given address that failed has no precedence over a learnt one that works,
	// also when it is not passed over any more; one that was not tried has.
	later := now.Add(time.Hour)
	p = newPool([]string{"seed:1", "seed:2"})
	p.home, p.current = p.all[0], p.all[0]
	p.learn([]string{"b:1"})
	p.failed(at(p, "seed:1"), now, true)
	if e := p.preferred(later); e.addr != "seed:2" {
		t.Errorf("prefers %s", e.addr)
	}
	p.failed(at(p, "seed:2"), now, true)
	p.worked(at(p, "b:1"), now)
	if e := p.preferred(later); e.addr != "b:1" {
		t.Errorf("prefers %s", e.addr)
	}
}

// An answer of a node that was dropped while the call was under way does not make
// its endpoint the current one again.
func TestAnswerOfADroppedNode(t *testing.T) {
	now := time.Now()
	p := newPool([]string{"seed:1"})
	p.learn([]string{"seed:1", "b:1"})
	b := p.all[1]
	p.learn([]string{"seed:1", "c:1"})
	p.failed(p.all[0], now, true)
	p.failed(p.all[1], now, true)
	p.worked(b, now)
	if !slices.Contains(p.all, p.current) {
		t.Errorf("calls go to %s, which was dropped", p.current.addr)
	}
}
