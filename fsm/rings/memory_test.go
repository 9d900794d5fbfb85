package rings

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Rings that were requested once are evicted first, then the least recently used.
func TestEvictionOrder(t *testing.T) {
	c := newCluster(t, 0)
	for i := range 8 {
		c.fill("g"+itoa(i), 10)
	}
	kept := func() (names []string) {
		for i := range 8 {
			if c.cache.Peek("g"+itoa(i)) != nil {
				names = append(names, "g"+itoa(i))
			}
		}
		return names
	}
	for i := range 6 { // g2 and g3 are asked for once
		c.newest("g" + itoa(i))
		if i != 2 && i != 3 {
			c.newest("g" + itoa(i))
		}
	}
	for _, want := range [][]string{{"g0", "g1", "g3", "g4", "g5"}, {"g0", "g1", "g4", "g5"}, {"g0", "g4", "g5"}, {"g0", "g5"}, {"g0"}} {
		c.must("g0", Freshness{}) // it is requested all the time
		c.cache.mu.Lock()
		c.cache.memory = c.cache.used
		c.cache.makeRoomLocked(1)
		c.cache.mu.Unlock()
		if got := kept(); !slices.Equal(got, want) {
			t.Errorf("kept %v, want %v", got, want)
		}
	}
	if n := c.cache.Stats().Evicted; n != 5 {
		t.Errorf("%d evicted", n)
	}
	c.sums()
}

// watchBytes looks at the memory until stop is called, and fails above the budget.
func watchBytes(t *testing.T, c *cluster) (stop func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			if s := c.cache.Stats(); s.Bytes > s.Memory {
				t.Errorf("%d bytes, at most %d", s.Bytes, s.Memory)
				return
			}
			select {
			case <-done:
				return
			default:
				runtime.Gosched()
			}
		}
	})
	return func() { close(done); all.Wait() }
}

// A scan over cold groups stays within the memory, and does not evict the rings that
// are requested all the time.
func TestScanOfColdGroups(t *testing.T) {
	const hot = 4
	cold := 2000
	if testing.Short() {
		cold = 400
	}
	c := newCluster(t, 2<<20)
	for i := range cold {
		c.fill("cold"+itoa(i), 5)
	}
	for i := range hot {
		c.fill("hot"+itoa(i), 20)
		c.newest("hot" + itoa(i))
	}
	stop := watchBytes(t, c)
	scanned := make(chan struct{})
	var all sync.WaitGroup
	for i := range 2 * hot {
		all.Go(func() {
			group := "hot" + itoa(i%hot)
			for {
				fresh := Freshness{}
				if i >= hot {
					fresh.MinIndex = c.m.State().Index()
				}
				v, _ := c.must(group, fresh)
				if v == nil || v.Ring.Len() < 20 {
					t.Error("no ring")
					return
				}
				select {
				case <-scanned:
					return
				default:
					runtime.Gosched()
				}
			}
		})
	}
	var scan sync.WaitGroup
	for part := range 4 {
		scan.Go(func() {
			for i := part; i < cold; i += 4 {
				if v, _ := c.must("cold"+itoa(i), Freshness{}); v == nil || v.Ring.Len() != 5 {
					t.Error("no ring")
					return
				}
			}
		})
	}
	for i := range 200 {
		c.apply(putAt("hot"+itoa(i%hot), "m", "10.0.0.1:"+itoa(1+i)))
	}
	scan.Wait()
	close(scanned)
	all.Wait()
	stop()
	for i := range hot {
		if c.cache.Peek("hot"+itoa(i)) == nil {
			t.Errorf("hot%d was dropped for the scan", i)
		}
	}
	if s := c.cache.Stats(); s.Evicted < uint64(cold/2) || s.Builds < uint64(cold) {
		t.Errorf("%+v", s)
	}
	c.sums()
}

// A scan evicts no ring that was requested twice before it, though nobody requests that
// meanwhile.
func TestScanEvictsNoRingThatWasRequestedAgain(t *testing.T) {
	const hot, cold = 10, 200
	c := newCluster(t, 1<<20)
	for i := range hot {
		c.fill("hot"+itoa(i), 5)
		c.newest("hot" + itoa(i))
		c.newest("hot" + itoa(i))
	}
	for i := range cold {
		c.fill("cold"+itoa(i), 5)
		c.newest("cold" + itoa(i))
	}
	for i := range hot {
		if c.cache.Peek("hot"+itoa(i)) == nil {
			t.Errorf("hot%d was evicted", i)
		}
	}
	if s := c.cache.Stats(); s.Evicted < cold/4 {
		t.Errorf("%d evicted: the scan fits the memory", s.Evicted)
	}
	c.sums()
}

// Rings that grow beyond the memory together, each with waiters, stay within it.
func TestRingsThatReadersWaitForStayWithinTheMemory(t *testing.T) {
	const groups = 8
	c := newCluster(t, 1<<20)
	for i := range groups {
		c.fill("g"+itoa(i), 40)
	}
	stop := watchBytes(t, c)
	for round := range 10 {
		release := c.hold(small)
		var all sync.WaitGroup
		for i := range groups {
			c.apply(putAt("g"+itoa(i), "m", "10.0.0.1:"+itoa(1+round)))
			all.Go(func() {
				if v := c.newest("g" + itoa(i)); v == nil || v.Ring.Len() != 41 {
					t.Error("no ring")
				}
			})
			c.until("it waits", func() bool { e := c.entry("g" + itoa(i)); return e != nil && e.waiters == 1 })
		}
		release()
		all.Wait()
	}
	stop()
	c.sums()
}

// A ring is dropped before its next build if that fits the memory only without it.
func TestOwnRingMakesRoom(t *testing.T) {
	c := newCluster(t, 1<<20)
	c.fill("web", 100)
	c.newest("web")
	c.fill("other", 10)
	c.newest("other")
	c.cache.mu.Lock()
	c.cache.memory = buildBytes(c.m.State().Group("web")) + 2000 // no room beside a ring
	c.cache.mu.Unlock()
	stop := watchBytes(t, c)
	defer stop()
	for i := range 5 {
		c.apply(putAt("web", "1", "10.0.0.1:"+itoa(100+i)))
		right(t, c.newest("web"))
	}
	c.sums()
}

// No ring is evicted for one that does not fit while others are built.
func TestNoRingIsDroppedForNothing(t *testing.T) {
	c := newCluster(t, 1<<20)
	c.fill("web", 10)
	c.newest("web")
	c.cache.mu.Lock()
	defer c.cache.mu.Unlock()
	c.cache.reserved = c.cache.memory / 2
	if c.cache.makeRoomLocked(c.cache.memory * 3 / 4) {
		t.Error("there is room for half and three quarters")
	}
	c.cache.reserved = 0
	if c.cache.Peek("web") == nil {
		t.Error("dropped for nothing")
	}
}

// A ring is dropped a while after its last request, and not before.
func TestIdleRingsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 0)
		defer c.cache.Close()
		c.fill("web", 5)
		c.fill("asked", 5)
		time.Sleep(time.Minute)
		c.newest("web")
		c.newest("asked")
		for range 5 {
			time.Sleep(IdleAfter/5 - time.Second)
			c.must("asked", Freshness{})
		}
		synctest.Wait()
		if c.cache.Peek("web") == nil {
			t.Error("dropped before its time")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if c.cache.Peek("web") != nil || c.cache.Peek("asked") == nil {
			t.Errorf("kept %v, and the requested one: %v", c.cache.Peek("web") != nil, c.cache.Peek("asked") != nil)
		}
		c.sums()
	})
}
