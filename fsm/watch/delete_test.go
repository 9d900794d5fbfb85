package watch

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A watcher of a group gets its deletion, and a snapshot when it is created again.
func TestGroupWatchSeesDeletionAndReturn(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"))
	c.apply(put("web", "b"))
	w := c.hub.Group(Known{Group: "web"})
	took(t, w, "web at 2: a b")
	wake := asleep(t, w.Poll)
	c.apply(deleteGroup("web"))
	woken(t, wake)
	step, _ := w.Poll()
	if !step.Unknown || step.Index != 3 {
		t.Errorf("got %+v, want that it is unknown at 3", step)
	}
	if index, ok := w.Progress(); !ok || index != 3 {
		t.Errorf("progress %d, %t", index, ok)
	}
	wake = asleep(t, w.Poll)
	c.apply(putAt("web", "b", "10.0.0.2:80"))
	woken(t, wake)
	took(t, w, "web at 4: b")
	c.apply(put("web", "c"))
	took(t, w, "web 4→5 +c")
}

// A watcher that does not poll meanwhile gets a snapshot, and so does one that resumes
// from before the deletion.
func TestGroupWatchMissesADeletion(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"))
	w := c.hub.Group(Known{Group: "web"})
	took(t, w, "web at 1: a")
	before := c.known("web")
	c.apply(deleteGroup("web"))
	c.apply(putAt("web", "a", "10.0.0.2:80"))
	if after := c.known("web"); after.Fingerprint != before.Fingerprint || after.Revision <= before.Revision {
		t.Fatalf("%+v, then %+v", before, after)
	}
	took(t, w, "web at 3: a")
	took(t, c.hub.Group(before), "web at 3: a")
}

// A group that one call of Apply deletes and creates again is a change.
func TestGroupMadeAgainAtOnce(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"), put("web", "b"))
	w := c.hub.Group(Known{Group: "web"})
	took(t, w, "web at 2: a b")
	c.apply(deleteGroup("web"), putAt("web", "b", "10.0.0.2:80"), putAt("web", "c", "10.0.0.2:80"))
	took(t, w, "web 2→5 +b +c -a -b")
}

// Watchers of many groups get the deletion of one, and its creation.
func TestPrefixSeesDeletions(t *testing.T) {
	c := newCluster(t)
	c.apply(put("w1", "a"))
	c.apply(put("w2", "a"))
	w := c.hub.Prefix("w")
	tookPrefix(t, w, "w1 at 1: a; w2 at 2: a")
	wake := asleep(t, w.Poll)
	c.apply(deleteGroup("w1"))
	woken(t, wake)
	tookPrefix(t, w, "w1 unknown")
	c.apply(putAt("w1", "a", "10.0.0.2:80"))
	tookPrefix(t, w, "w1 at 4: a")
	c.apply(put("x", "a"))
	c.apply(deleteGroup("x"))
	tookPrefix(t, w, "")
}

// The list has each deleted group once, and none that it never had.
func TestListSeesDeletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.apply(put("a", "1"), put("b", "1"))
		w := c.hub.Groups()
		next := func(want ...string) {
			t.Helper()
			time.Sleep(ListPause)
			synctest.Wait()
			l, wake := w.Poll()
			if l == nil && (len(want) > 0 || wake == nil) || l != nil && !slices.Equal(names(l), want) {
				t.Errorf("got %+v, want %v", l, want)
			}
		}
		next("a", "b")
		c.apply(deleteGroup("a"))
		c.apply(put("c", "1"))
		c.apply(deleteGroup("c"))
		next("a")
		c.apply(put("b", "2"))
		next("b")
		c.apply(putAt("a", "1", "10.0.0.2:80"))
		next("a")
		c.apply(deleteGroup("b"))
		next("b")
		next()
	})
}
