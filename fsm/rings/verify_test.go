package rings

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/werbenhu/registry/ring"
)

// flip changes one bit of a ring's points in memory.
func flip(r *ring.Ring) {
	tail := reflect.ValueOf(r).Elem().FieldByName("table").Elem().FieldByName("tail")
	*(*uint32)(unsafe.Pointer(tail.Index(0).UnsafeAddr())) ^= 1 << 31
}

// A ring that is based on a wrong one is found and replaced.
func TestVerificationFindsAWrongRing(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 50)
	c.newest("web")
	c.apply(put("web", "b"))
	c.newest("web")
	c.until("a right ring was compared", func() bool { return c.cache.stats.verified.Load() == 1 && c.cache.reserved == 0 })
	if s := c.cache.Stats(); s.Mismatches != 0 {
		t.Fatalf("%+v", s)
	}
	c.cache.mu.Lock()
	c.cache.verifyAt = time.Time{} // the turn has come
	c.cache.mu.Unlock()
	flip(c.cache.Peek("web").Ring)
	c.apply(put("web", "c"))
	c.newest("web")
	c.until("it was compared", func() bool { return c.cache.stats.mismatches.Load() == 1 && c.cache.reserved == 0 })
	v := c.newest("web")
	if v.Revision != c.m.State().Group("web").Revision {
		t.Errorf("ring of revision %d", v.Revision)
	}
	right(t, v)
	c.sums()
}

// If a later ring is based on the wrong one meanwhile, neither is kept.
func TestVerificationDropsWhatGrowsFromAWrongRing(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 50)
	v := c.newest("web")
	flip(v.Ring)
	e := c.entry("web")
	c.cache.mu.Lock()
	e.building = true
	c.cache.verifyLocked(e, v)
	if !e.dropped || c.cache.Peek("web") != nil || c.cache.stats.mismatches.Load() != 1 {
		t.Error("the wrong ring's successor would be kept")
	}
	e.building = false
	c.cache.mu.Unlock()
	right(t, c.newest("web"))
	c.sums()
}

// Comparisons take at most 1 % of a processor.
func TestVerificationIsRare(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 200)
	c.newest("web")
	for i := range 20 {
		c.apply(put("web", "n"+itoa(i)))
		c.newest("web")
	}
	c.until("no build is running", func() bool { return c.cache.reserved == 0 })
	c.cache.mu.Lock()
	defer c.cache.mu.Unlock()
	if n := c.cache.stats.verified.Load(); n == 0 || n > 5 {
		t.Errorf("%d of 20 rings were compared", n)
	}
	if rest := time.Until(c.cache.verifyAt); rest <= 0 && c.cache.stats.verified.Load() == 1 {
		t.Errorf("the next comparison is %v away", rest)
	}
}

// A comparison that does not fit the memory is left out.
func TestVerificationStaysWithinTheMemory(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 50)
	v := c.newest("web")
	c.cache.mu.Lock()
	defer c.cache.mu.Unlock()
	c.cache.memory = c.cache.used + buildFactor*v.bytes() - 1
	c.cache.verifyLocked(c.entry("web"), v)
	if n := c.cache.stats.verified.Load(); n != 0 {
		t.Error("compared beyond the memory")
	}
	c.cache.memory++
	c.cache.verifyLocked(c.entry("web"), v)
	if n := c.cache.stats.verified.Load(); n != 1 {
		t.Error("not compared within it")
	}
}

// Some gives all rings by turns.
func TestSomeGoesOverAllRings(t *testing.T) {
	c := newCluster(t, 0)
	for i := range 7 {
		c.fill("g"+itoa(i), 2)
		if i != 3 {
			c.newest("g" + itoa(i))
		}
	}
	var got []string
	from := ""
	for range 3 {
		views, next := c.cache.Some(from, 2, 1<<30)
		var names []string
		for name := range views {
			names = append(names, name)
		}
		slices.Sort(names)
		got = append(got, names...)
		from = next
	}
	if want := "[g0 g1 g2 g4 g5 g6]"; fmt.Sprint(got) != want || from != "" {
		t.Errorf("got %v, and next %q; want %s", got, from, want)
	}
	if views, next := c.cache.Some("", 100, 1); len(views) != 1 || next != "g1" {
		t.Errorf("%d rings of at most a byte, next %q", len(views), next)
	}
}
