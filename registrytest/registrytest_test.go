package registrytest_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/sdk"
)

func register(t *testing.T, c *registrytest.Cluster, id string, ttl time.Duration) *sdk.Registration {
	t.Helper()
	r, err := c.Client().Register(t.Context(), sdk.Service{Group: "web", ID: id, Addr: "127.0.0.1:8080", TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Expire ends the lease of one member and of no other; it is registered again.
func TestExpireDropsOneMember(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t)
	register(t, c, "web-1", time.Second)
	register(t, c, "web-2", time.Minute)
	before := created(t, c)
	resume := c.Expire("web", "web-1")
	if after := created(t, c); after["web-1"] != 0 || after["web-2"] != before["web-2"] {
		t.Errorf("expired: created at %v, before %v", after, before)
	}
	watch, err := c.Client().Watch(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	resume()
	for again := false; !again; {
		e, err := watch.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again = slices.ContainsFunc(e.Put, func(m sdk.Member) bool { return m.ID == "web-1" })
	}
	if after := created(t, c); after["web-2"] != before["web-2"] {
		t.Errorf("created at %v, before %v", after, before)
	}
}

// created is when the members were, in indexes of the log.
func created(t *testing.T, c *registrytest.Cluster) map[string]uint64 {
	t.Helper()
	all, err := c.Client().Members(t.Context(), "web", sdk.Linearizable())
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]uint64{}
	for _, m := range all {
		byID[m.ID] = m.CreatedIndex
	}
	return byID
}

func TestPinAndKey(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t)
	ids := []string{"web-1", "web-2", "web-3"}
	for _, id := range ids {
		register(t, c, id, time.Minute)
	}
	owner := func(key string) string {
		t.Helper()
		m, err := c.Client().Match(t.Context(), "web", key, sdk.Linearizable())
		if err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	natural := owner("user-1")
	for _, id := range ids {
		if key := c.Key("web", id); owner(key) != id {
			t.Errorf("key %s is with %s, not with %s", key, owner(key), id)
		}
		unpin := c.Pin("web", "user-1", id)
		if got := owner("user-1"); got != id {
			t.Errorf("pinned to %s, and is with %s", id, got)
		}
		unpin()
		if got := owner("user-1"); got != natural {
			t.Errorf("unpinned, and with %s, not with %s", got, natural)
		}
	}
}

// A cleanup may use helpers, though the test's context has ended.
func TestHelpersInACleanup(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t)
	register(t, c, "web-1", time.Minute)
	register(t, c, "web-2", time.Minute)
	key := c.Key("web", "web-1")
	t.Cleanup(func() {
		c.Leader()
		if m, err := c.Client().Match(context.Background(), "web", key, sdk.Linearizable()); err != nil || m.ID != "web-1" {
			t.Errorf("after unpin: %v, %v", m, err)
		}
	})
	t.Cleanup(c.Pin("web", key, "web-2"))
}

func TestStopAndRestart(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3))
	register(t, c, "web-1", time.Minute)
	stopped := c.StopLeader()
	if c.Leader() == stopped {
		t.Error("the stopped node leads")
	}
	var r sdk.Receipt
	if _, err := c.Client().Members(t.Context(), "web", sdk.Linearizable(), sdk.WithReceipt(&r)); err != nil {
		t.Fatal(err)
	}
	c.WaitIndex(r.Index) // of those that run
	addr := c.Nodes()[stopped].Addr()
	c.Restart(stopped)
	c.WaitIndex(r.Index)
	if n := c.Nodes()[stopped]; n.Addr() != addr {
		t.Errorf("%s came back at %s, was at %s", n.ID(), n.Addr(), addr)
	}
	for i := range c.Nodes() {
		c.Stop(i)
	}
	c.Restart(0, 1, 2)
	if m, err := c.Client().Match(t.Context(), "web", "user-1", sdk.Linearizable()); err != nil || m.ID != "web-1" {
		t.Errorf("after a restart of all: %v, %v", m, err)
	}
}

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	said string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// said is what f fails with.
func said(t *testing.T, f func(testing.TB)) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // which Fatalf may end
		defer close(done)
		f(r)
	}()
	<-done
	return r.said
}

// Misuse fails with what is wrong, at once and not after a wait.
func TestMisuse(t *testing.T) {
	with := func(f func(*registrytest.Cluster)) func(testing.TB) {
		return func(tb testing.TB) {
			c := registrytest.Start(tb)
			if _, err := c.Client().Register(tb.Context(), sdk.Service{Group: "web", ID: "web-1", Addr: "127.0.0.1:8080", TTL: time.Hour}); err != nil {
				tb.Fatalf("register: %v", err)
			}
			f(c)
		}
	}
	for want, f := range map[string]func(testing.TB){
		"WithNodes: 2 nodes, want 1 or 3":       func(tb testing.TB) { registrytest.Start(tb, registrytest.WithNodes(2)) },
		"web/web-9 was registered by no client": with(func(c *registrytest.Cluster) { c.Expire("web", "web-9") }),
		"web/web-1 has a TTL of 1h0m0s, want":   with(func(c *registrytest.Cluster) { c.Expire("web", "web-1") }),
		"unknown group": with(func(c *registrytest.Cluster) {
			if _, err := c.Client().DeleteGroup(context.Background(), "web", sdk.GroupDeletion{Force: true}); err != nil {
				t.Error(err)
			}
			c.Expire("web", "web-1")
		}),
		"group web has no member web-9":         with(func(c *registrytest.Cluster) { c.Pin("web", "k", "web-9") }),
		"web/web-9 owns none of 10000 keys":     with(func(c *registrytest.Cluster) { c.Key("web", "web-9") }),
		"Stop: node-1 does not run":             with(func(c *registrytest.Cluster) { c.Stop(0); c.Stop(0) }),
		"Restart: node-1 runs":                  with(func(c *registrytest.Cluster) { c.Restart(0) }),
		"node-1 runs, or is named twice":        with(func(c *registrytest.Cluster) { c.Stop(0); c.Restart(0, 0) }),
		"StopLeader: 1 nodes, stopped: [false]": with(func(c *registrytest.Cluster) { c.StopLeader() }),
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			if got := said(t, f); !strings.Contains(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			if took := time.Since(began); took > registrytest.Patience {
				t.Errorf("it took %v", took)
			}
		})
	}
}
