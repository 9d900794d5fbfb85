package rings

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// Concurrent requests of a ring make one build.
func TestFirstQuestionBuildsOnce(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 20)
	release := c.hold(small)
	defer release()
	const readers = 50
	views := make([]*View, readers)
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() { views[i], _ = c.must("web", Freshness{}) })
	}
	c.waiters("web", readers)
	release()
	all.Wait()
	for _, v := range views {
		if v != views[0] || v == nil || v.Ring.Len() != 20 {
			t.Fatalf("views %p and %p", views[0], v)
		}
	}
	right(t, views[0])
	if s := c.cache.Stats(); s.Builds != 1 || s.Rings != 1 {
		t.Errorf("%+v", s)
	}
}

// A group without requests costs no build, no goroutine and no entry; one without
// requests since its last build costs no build.
func TestNoBuildWithoutAQuestion(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("asked", 10)
	c.newest("asked")
	c.until("the builder is gone", func() bool { return c.cache.classes[small].running == 0 })
	before := runtime.NumGoroutine()
	for i := range 3000 {
		c.apply(put("g"+itoa(i%50), itoa(i)), put("asked", itoa(i)))
	}
	if s := c.cache.Stats(); s.Builds != 1 || s.Rings != 1 || s.Pending != 0 {
		t.Errorf("%+v, want the one build that was requested", s)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if c.entry("g1") != nil {
		t.Error("an entry of a group without requests")
	}
}

// While the next ring is built, a reader gets the previous one, with its revision
// and delay.
func TestWarmGroupIsAnsweredFromTheRingBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 0)
		defer c.cache.Close()
		c.fill("web", 10)
		first := c.newest("web")
		if v, delay := c.must("web", Freshness{}); v != first || delay != 0 {
			t.Errorf("delay %v of the newest", delay)
		}
		release := c.hold(small)
		defer release()
		c.apply(put("web", "new"))
		time.Sleep(300 * time.Millisecond)
		c.apply(put("web", "newer")) // the delay is that of the first change
		v, delay := c.must("web", Freshness{})
		if v != first || v.Revision >= c.m.State().Group("web").Revision || delay != 300*time.Millisecond {
			t.Errorf("revision %d, delay %v", v.Revision, delay)
		}
		release()
		synctest.Wait()
		if v, delay := c.must("web", Freshness{}); v.Revision != c.m.State().Group("web").Revision || delay != 0 || v.Ring.Len() != 12 {
			t.Errorf("revision %d, delay %v after the build", v.Revision, delay)
		}
	})
}

// stale runs f with the ring of group web one change behind, and builds on hold.
func stale(t *testing.T, f func(t *testing.T, c *cluster, release func())) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 0)
		defer c.cache.Close()
		c.fill("web", 10)
		c.newest("web")
		release := c.hold(small)
		defer release()
		c.apply(put("web", "new"))
		f(t, c, release)
	})
}

// waits checks that a reader waits until release is called, and then has the
// newest ring.
func waits(t *testing.T, c *cluster, fresh Freshness, release func()) {
	t.Helper()
	var v *View
	go func() { v, _, _ = c.get(t.Context(), "web", fresh) }()
	synctest.Wait()
	if v != nil {
		t.Fatalf("answered from revision %d of %d", v.Revision, c.m.State().Group("web").Revision)
	}
	release()
	synctest.Wait()
	if v == nil || v.Revision != c.m.State().Group("web").Revision {
		t.Fatalf("after the build: %+v", v)
	}
}

// A ring that is behind answers for a second, and then its readers wait.
func TestStaleRingHasALimit(t *testing.T) {
	stale(t, func(t *testing.T, c *cluster, release func()) {
		time.Sleep(StaleLimit)
		if _, delay := c.must("web", Freshness{}); delay != StaleLimit {
			t.Errorf("delay %v", delay)
		}
		time.Sleep(time.Millisecond)
		waits(t, c, Freshness{}, release)
	})
}

// The delay of a ring counts from the first change during its build.
func TestStaleRingCountsFromTheFirstChangeThatItLacks(t *testing.T) {
	stale(t, func(t *testing.T, c *cluster, release func()) {
		time.Sleep(StaleLimit / 2)
		e := c.entry("web")
		c.cache.mu.Lock() // as if a build of this revision were running
		e.building, e.buildRevision, e.nextMissed = true, c.m.State().Group("web").Revision, nil
		c.cache.pinLocked(e)
		c.cache.mu.Unlock()
		built := c.m.State()
		time.Sleep(StaleLimit / 4)
		c.apply(put("web", "newer"))
		time.Sleep(StaleLimit / 8)
		v, err := build(built, built.Group("web"), e.view.Load())
		if err != nil {
			t.Fatal(err)
		}
		c.cache.mu.Lock()
		e.building = false
		c.cache.publishLocked(e, v)
		c.cache.mu.Unlock()
		if got, delay := c.must("web", Freshness{}); got != v || delay != StaleLimit/8 {
			t.Errorf("delay %v, want that of the change which came during the build", delay)
		}
	})
}

// The limit is as long as the last build, if that is longer.
func TestStaleLimitIsOneBuildAtLeast(t *testing.T) {
	stale(t, func(t *testing.T, c *cluster, release func()) {
		c.entry("web").buildTime.Store(int64(3 * time.Second))
		time.Sleep(3 * time.Second)
		if _, delay := c.must("web", Freshness{}); delay != 3*time.Second {
			t.Errorf("delay %v", delay)
		}
		time.Sleep(time.Millisecond)
		waits(t, c, Freshness{}, release)
	})
}

// A reader that waited for a build gets the delay of changes during that build; one
// that bounds the delay waits for the next build.
func TestDelayAfterAWait(t *testing.T) {
	stale(t, func(t *testing.T, c *cluster, release func()) {
		e := c.entry("web")
		c.cache.mu.Lock() // as if a build of this revision were running
		e.building, e.buildRevision, e.nextMissed = true, c.m.State().Group("web").Revision, nil
		c.cache.pinLocked(e)
		c.cache.mu.Unlock()
		built := c.m.State()
		type got struct {
			v     *View
			delay time.Duration
		}
		ask := func(fresh Freshness) <-chan got {
			out := make(chan got, 1)
			go func() {
				v, delay, err := c.get(t.Context(), "web", fresh)
				if err != nil {
					t.Error(err)
				}
				out <- got{v, delay}
			}()
			return out
		}
		most := StaleLimit / 2
		any, fresh := ask(Freshness{MinIndex: built.Index()}), ask(Freshness{MinIndex: built.Index(), MaxDelay: &most})
		synctest.Wait()
		c.apply(put("web", "newer"))
		time.Sleep(StaleLimit)
		v, err := build(built, built.Group("web"), e.view.Load())
		if err != nil {
			t.Fatal(err)
		}
		c.cache.mu.Lock()
		e.building = false
		c.cache.publishLocked(e, v)
		c.cache.finishLocked(e, nil)
		c.cache.mu.Unlock()
		if a := <-any; a.v != v || a.delay != StaleLimit {
			t.Errorf("delay %v, want that of the change which came during the build", a.delay)
		}
		release()
		if f := <-fresh; f.v == v || f.delay > most {
			t.Errorf("answered from revision %d with a delay of %v, at most %v is allowed", f.v.Revision, f.delay, most)
		}
	})
}

// A reader with a minimum index waits for a ring that has it.
func TestNeedOfAnIndex(t *testing.T) {
	stale(t, func(t *testing.T, c *cluster, release func()) {
		old := c.cache.Peek("web")
		if v, _ := c.must("web", Freshness{MinIndex: old.Index}); v != old {
			t.Error("waited for a ring that has the index")
		}
		waits(t, c, Freshness{MinIndex: c.m.State().Index()}, release)
		if v := c.cache.Peek("web"); v.Index < c.m.State().Index() || v.Ring.Len() != 11 {
			t.Errorf("ring of index %d with %d members", v.Index, v.Ring.Len())
		}
	})
}

// A reader that bounds the delay waits if it is longer.
func TestNeedOfADelay(t *testing.T) {
	stale(t, func(t *testing.T, c *cluster, release func()) {
		time.Sleep(100 * time.Millisecond)
		most := 100 * time.Millisecond
		if _, delay := c.must("web", Freshness{MaxDelay: &most}); delay != most {
			t.Errorf("delay %v", delay)
		}
		most--
		waits(t, c, Freshness{MaxDelay: &most}, release)
	})
}

// The build of a waiter that gives up is cancelled, and too many waiters are refused.
func TestQueueIsBounded(t *testing.T) {
	c := newCluster(t, 0)
	groups := maxQueue + 1
	for i := range groups {
		c.apply(put("g"+itoa(i), "a"))
	}
	release := c.hold(small)
	defer release()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range maxQueue {
		if _, _, err := c.get(gone, "g"+itoa(i), Freshness{}); !errors.Is(err, context.Canceled) {
			t.Fatalf("group %d: %v", i, err)
		}
	}
	if s := c.cache.Stats(); s.Pending != maxQueue+c.cache.classes[small].slots || s.Busy != 0 {
		t.Errorf("%+v", s)
	}
	if _, _, err := c.get(t.Context(), "g"+itoa(maxQueue), Freshness{}); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	if c.entry("g"+itoa(maxQueue)) != nil {
		t.Error("a refused request has an entry")
	}
	release()
	c.until("the queue is empty", func() bool { return c.cache.classes[small].running == 0 && c.cache.queued[foreground] == 0 })
	if s := c.cache.Stats(); s.Builds != 0 || s.Rings != 0 || s.Busy != 1 || c.entry("g0") != nil {
		t.Errorf("%+v: built without a waiter", s)
	}
	c.newest("g0")
}

// A waiter that gives up does not cancel the build of others.
func TestOneOfTwoGivesUp(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 10)
	release := c.hold(small)
	defer release()
	var all sync.WaitGroup
	all.Go(func() { c.must("web", Freshness{}) })
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	all.Go(func() {
		if _, _, err := c.get(ctx, "web", Freshness{}); !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause", err)
		}
	})
	c.waiters("web", 2)
	cancel(cause)
	c.waiters("web", 1)
	release()
	all.Wait()
}

// A ring that is larger than the memory is refused by name, and dropped if its group
// grows to that.
func TestRingLargerThanTheMemory(t *testing.T) {
	c := newCluster(t, 1<<20)
	c.fill("large", 200)
	_, _, err := c.get(t.Context(), "large", Freshness{})
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), `"large"`) || !strings.Contains(err.Error(), "-ring-memory is 1 MB") {
		t.Errorf("got %v", err)
	}
	c.fill("grows", 50)
	c.newest("grows")
	c.fill("grows", 200)
	c.must("grows", Freshness{}) // still from the ring before
	if _, _, err := c.get(t.Context(), "grows", Freshness{MinIndex: c.index}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("grown: got %v", err)
	}
	c.until("its ring is gone", func() bool { return c.cache.used == 0 })
	c.sums()
}

// After Close nothing is built, waiters get an error, and no builder is left.
func TestClose(t *testing.T) {
	for name, held := range map[string]bool{"waiting builds": true, "running builds": false} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 0)
			const groups = 30
			for i := range groups {
				c.fill("g"+itoa(i), 100)
			}
			if held {
				defer c.hold(small)()
			}
			var all sync.WaitGroup
			for i := range groups {
				all.Go(func() {
					if _, _, err := c.get(t.Context(), "g"+itoa(i), Freshness{}); err != nil && !errors.Is(err, ErrBusy) {
						t.Errorf("got %v", err)
					}
				})
			}
			c.until("some wait", func() bool { return c.cache.queued[foreground] > 1 || c.cache.stats.builds.Load() == groups })
			c.cache.Close()
			builds := c.cache.Stats().Builds
			all.Wait()
			c.apply(put("g1", "new"))
			if _, _, err := c.get(t.Context(), "g1", Freshness{MinIndex: c.index}); !errors.Is(err, ErrBusy) {
				t.Errorf("after Close: %v", err)
			}
			if !held && c.cache.Stats().Pending != c.cache.queued[foreground] {
				t.Error("a builder runs after Close")
			}
			if n := c.cache.Stats().Builds; n != builds {
				t.Errorf("%d builds after Close, %d before", n, builds)
			}
			c.cache.Close()
		})
	}
}

// A request of a ring that is kept allocates nothing.
func TestWarmGetAllocatesNothing(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 10)
	c.newest("web")
	s := c.m.State()
	g := s.Group("web")
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := c.cache.Get(context.Background(), s, g, Freshness{MinIndex: s.Index()}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// With the lock of the cache held, readers of the newest ring get their answer.
func TestWarmGetTakesNoLock(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 10)
	c.newest("web")
	c.cache.mu.Lock()
	defer c.cache.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.must("web", Freshness{})
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a reader waits for the lock")
	}
}

var _ fsm.Observer = (*Cache)(nil)
