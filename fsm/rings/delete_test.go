package rings

import (
	"errors"
	"sync"
	"testing"

	"github.com/werbenhu/registry/fsm"
)

// The ring of a deleted group is dropped, its waiters get an error, and a group that
// is created again has another ring.
func TestDeletionDropsTheRing(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 7)
	c.fill("db", 7)
	c.newest("web")
	old := c.m.State()
	c.apply(deleteGroup("web"))
	if c.cache.Peek("web") != nil || c.cache.Stats().Rings != 0 {
		t.Error("the ring is kept")
	}
	if _, _, err := c.cache.Get(t.Context(), old, old.Group("web"), Freshness{}); !errors.Is(err, fsm.ErrUnknownGroup) {
		t.Errorf("a reader of the state before: %v", err)
	}
	release := c.hold(small)
	defer release()
	var all sync.WaitGroup
	all.Go(func() {
		if _, _, err := c.get(t.Context(), "db", Freshness{}); !errors.Is(err, fsm.ErrUnknownGroup) {
			t.Errorf("one that waits: %v", err)
		}
	})
	c.waiters("db", 1)
	c.apply(deleteGroup("db"))
	all.Wait()
	release()
	c.apply(putAt("web", "new", "10.0.0.2:80"))
	if v := c.newest("web"); v.Ring.Len() != 1 || v.Revision != c.m.State().Index() {
		t.Errorf("%d members at %d", v.Ring.Len(), v.Revision)
	}
	c.sums()
}
