package rings

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// A large ring that readers wait for gets the next free memory: requests of small
// rings do not starve it.
func TestLargeRingIsNotStarved(t *testing.T) {
	const groups = 40
	c := newCluster(t, 1<<30)
	c.fill("big", 300)
	for i := range groups {
		c.fill("small"+itoa(i), 100)
	}
	c.cache.memory = buildBytes(c.m.State().Group("big")) * 5 / 4
	c.newest("big")
	stop := watchBytes(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := w; ctx.Err() == nil; i += 4 {
				_, _, _ = c.get(ctx, "small"+itoa(i%groups), Freshness{}) // the last ones are given up
			}
		})
	}
	for i := range 10 {
		c.apply(putAt("big", "1", "10.0.0.1:"+itoa(100+i)))
		c.newest("big")
	}
	cancel()
	all.Wait()
	stop()
	c.sums()
}

// Foreground builds go before background builds, however many these are, and also
// if they were in the background before.
func TestReadersGoFirst(t *testing.T) {
	c := newCluster(t, 0)
	const warm = 20
	for i := range warm {
		c.fill("warm"+itoa(i), 5)
		c.newest("warm" + itoa(i))
		c.must("warm"+itoa(i), Freshness{})
		c.entry("warm" + itoa(i)).notBefore = time.Time{}
	}
	c.fill("cold", 5)
	var all sync.WaitGroup
	defer all.Wait()
	release := c.hold(small)
	defer release()
	for i := range warm {
		c.apply(put("warm"+itoa(i), "new"))
	}
	if n := c.cache.Stats().Pending; n != warm+c.cache.classes[small].slots {
		t.Fatalf("%d are pending", n)
	}
	for _, group := range []string{"cold", "warm7"} {
		all.Go(func() { c.newest(group) })
		c.waiters(group, 1)
	}
	for _, want := range []string{"cold", "warm7", "warm0", "warm1"} {
		c.cache.mu.Lock()
		e := c.cache.classes[small].first()
		if e.name != want {
			t.Errorf("%s goes before %s", e.name, want)
		}
		kind := e.queue
		c.cache.dequeueLocked(e)
		defer func() {
			c.cache.mu.Lock()
			defer c.cache.mu.Unlock()
			c.cache.enqueueLocked(e, small, kind)
		}()
		c.cache.mu.Unlock()
	}
}

// A ring that is behind has an index if the first change that it lacks came later.
func TestRingServesUpToTheFirstChangeThatItLacks(t *testing.T) {
	c := newCluster(t, 0)
	c.cache.lag = func() time.Duration { return StaleLimit / 4 }
	c.fill("web", 5)
	v := c.newest("web")
	c.fill("other", 50)
	before := c.index
	defer c.hold(small)()
	c.apply(put("other", "new"), put("web", "new"), put("other", "newer"), put("web", "newer")) // one batch
	s := c.m.State()
	got, behind, err := c.cache.Get(t.Context(), s, s.Group("web"), Freshness{MinIndex: before})
	if err != nil || got != v || behind.Index != before || behind.Delay < StaleLimit/4 {
		t.Errorf("%v, another ring: %t, has all up to %d of %d, delay with the node's lag %v", err, got != v, behind.Index, before, behind.Delay)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for index := before + 2; index <= c.index; index++ {
		if _, _, err := c.get(gone, "web", Freshness{MinIndex: index}); !errors.Is(err, context.Canceled) {
			t.Errorf("answered without the changes up to %d: %v", index, err)
		}
	}
}
