package rings

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// A snapshot that replaces the state drops all rings; waiters get the ring of the
// new state, or an error if the group is not in it.
func TestRestoreDropsAllRings(t *testing.T) {
	from := newCluster(t, 0)
	from.fill("web", 7)
	var data bytes.Buffer
	if err := from.m.State().WriteSnapshot(&data); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, 0)
	c.fill("web", 20) // its index is later than the snapshot's
	c.fill("gone", 5)
	c.fill("warm", 5)
	c.newest("warm")
	release := c.hold(small)
	defer release()
	var all sync.WaitGroup
	var v *View
	all.Go(func() { v, _ = c.must("web", Freshness{}) })
	all.Go(func() {
		if _, _, err := c.get(t.Context(), "gone", Freshness{}); !errors.Is(err, fsm.ErrUnknownGroup) {
			t.Errorf("a group that went: %v", err)
		}
	})
	c.waiters("web", 1)
	c.waiters("gone", 1)
	before := c.m.State()
	if err := c.m.Restore(&data); err != nil {
		t.Fatal(err)
	}
	if c.cache.Peek("warm") != nil || c.cache.Stats().Rings != 0 {
		t.Error("a ring of the state before is kept")
	}
	release()
	all.Wait()
	if v.Ring.Len() != 7 || v.Revision != c.m.State().Group("web").Revision {
		t.Errorf("%d members at %d", v.Ring.Len(), v.Revision)
	}
	// A reader that still has the previous state, of a later index.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if v, _, err := c.cache.Get(ctx, before, before.Group("web"), Freshness{MinIndex: before.Index()}); err != nil || v.Ring.Len() != 7 {
		t.Errorf("a reader of the state before: %v", err)
	}
	if _, _, err := c.cache.Get(ctx, before, before.Group("gone"), Freshness{}); !errors.Is(err, fsm.ErrUnknownGroup) {
		t.Errorf("a group of the state before: %v", err)
	}
	c.sums()
}

// A build during which the state is replaced publishes nothing.
func TestBuildOfAReplacedStateIsNotKept(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 5)
	c.newest("web")
	e := c.entry("web")
	c.cache.Restored(c.m.State())
	c.cache.mu.Lock()
	e.waiters++ // it was waited for
	c.cache.enqueueLocked(e, small, foreground)
	c.cache.mu.Unlock()
	c.until("the builder is gone", func() bool { return c.cache.classes[small].running == 0 })
	if c.cache.Peek("web") != nil || c.cache.Stats().Builds != 1 {
		t.Error("built for an entry that was dropped")
	}
	c.sums()
}
