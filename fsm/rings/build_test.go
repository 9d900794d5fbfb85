package rings

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// A change starts a build of a ring that was requested since its last build; any
// other waits for the next request.
func TestChangesBuildWhatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 0)
		defer c.cache.Close()
		c.fill("web", 10)
		c.newest("web")
		builds := func(want uint64) {
			t.Helper()
			synctest.Wait()
			if got := c.cache.Stats().Builds; got != want {
				t.Errorf("%d builds, want %d", got, want)
			}
		}
		c.apply(put("web", "b"))
		builds(1)
		c.must("web", Freshness{}) // a request, so the next change starts a build
		builds(2)
		c.must("web", Freshness{})
		c.apply(put("web", "c"))
		builds(3)
		c.apply(put("web", "d"))
		builds(3)
	})
}

// After a build that took d, a background build starts 3 d later and takes all
// changes since; a build that a reader waits for starts at once.
func TestBuildsThatNobodyWaitsForArePaced(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 300)
	began := time.Now()
	c.newest("web")
	e := c.entry("web")
	c.until("the build has ended", func() bool { return !e.building })
	if took := c.cache.Stats().Took; e.notBefore.Before(began.Add((1+cooldownFactor)*took)) || e.notBefore.After(time.Now().Add(cooldownFactor*took)) {
		t.Errorf("a build of %v, and the next %v after its start", took, e.notBefore.Sub(began))
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 0)
		defer c.cache.Close()
		c.fill("web", 10)
		c.newest("web")
		rest := func() {
			c.cache.mu.Lock()
			defer c.cache.mu.Unlock()
			c.entry("web").notBefore = time.Now().Add(3 * time.Second)
		}
		rest()
		for i := range 29 {
			c.must("web", Freshness{})
			time.Sleep(100 * time.Millisecond)
			if i == 20 {
				c.apply(put("web", "b"), put("web", "c"))
			}
		}
		synctest.Wait()
		if n := c.cache.Stats().Builds; n != 1 {
			t.Errorf("%d builds before the cooldown is over", n)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if n := c.cache.Stats().Builds; n != 2 || c.cache.Peek("web").Ring.Len() != 12 {
			t.Errorf("%d builds after it", n)
		}
		rest()
		c.apply(put("web", "d"))
		if v := c.newest("web"); v.Ring.Len() != 13 {
			t.Errorf("%d members", v.Ring.Len())
		}
	})
}

// Small and large rings do not wait for each other's builds.
func TestSmallAndLargeRingsDoNotWaitForEachOther(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("small", 10)
	c.fill("large", 300)
	for _, g := range []string{"small", "large"} {
		if want := map[string]int{"small": small, "large": large}[g]; classOf(c.m.State().Group(g)) != want {
			t.Fatalf("class of %q", g)
		}
	}
	release := c.hold(large)
	c.newest("small")
	release()
	defer c.hold(small)()
	c.newest("large")
}

// during calls f while the first ring of a group is built.
func during(t *testing.T, c *cluster, group string, f func(*entry)) {
	t.Helper()
	begun, end := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(begun); <-end })
	c.cache.build = func(s *fsm.State, g *fsm.Group, old *View) (*View, error) {
		first()
		return build(s, g, old)
	}
	got := make(chan error, 1)
	go func() {
		_, _, err := c.get(t.Context(), group, Freshness{})
		got <- err
	}()
	<-begun
	f(c.entry(group))
	close(end)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A ring that is requested during its build, and lacks a change, is built next.
func TestRequestDuringABuildIsNotLost(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 10)
	during(t, c, "web", func(e *entry) {
		e.requested.Store(true)
		c.apply(put("web", "new"))
	})
	want, e := c.m.State().Group("web").Revision, c.entry("web")
	c.until("the newest is there", func() bool { return e.view.Load().Revision == want })
}

// A build whose entry is dropped meanwhile publishes nothing.
func TestBuildOfADroppedEntryIsNotKept(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 10)
	during(t, c, "web", func(e *entry) {
		c.cache.mu.Lock()
		defer c.cache.mu.Unlock()
		c.cache.dropLocked(e)
	})
	c.until("the builds have ended", func() bool { return c.cache.stats.builds.Load() == 2 && c.cache.reserved == 0 })
	c.sums() // of the ring that its reader requested again
}

// One build of a group runs at a time, and no more in all than there are slots.
func TestOneBuildOfAGroupAtATime(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 10)
	c.newest("web")
	e := c.entry("web")
	c.cache.mu.Lock()
	e.building, e.buildRevision = true, c.m.State().Group("web").Revision
	e.notBefore = time.Time{} // it does not rest
	c.cache.mu.Unlock()
	c.apply(put("web", "b"))
	c.must("web", Freshness{})
	c.apply(put("web", "c"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.get(ctx, "web", Freshness{MinIndex: c.index}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	c.cache.mu.Lock()
	if e.queue != notQueued || c.cache.queued[foreground] != 0 || c.cache.stats.builds.Load() != 1 {
		t.Error("queued while it is built")
	}
	e.building = false
	c.cache.mu.Unlock()
	if v := c.newest("web"); v.Ring.Len() != 12 {
		t.Errorf("%d members", v.Ring.Len())
	}
	if slots := c.cache.classes[small].slots + c.cache.classes[large].slots; slots != max(2, runtime.GOMAXPROCS(0)) {
		t.Errorf("%d slots", slots)
	}
}
