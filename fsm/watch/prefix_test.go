package watch

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// A watcher that resumes gets the changes of its groups, the deleted ones, and the
// groups that it does not have.
func TestPrefixGoesOnFromKnownGroups(t *testing.T) {
	c := newCluster(t)
	for _, g := range []string{"w1", "w2", "w3", "w4", "x1"} {
		c.apply(put(g, "a"))
	}
	other := c.known("w4")
	other.Fingerprint++
	known := []Known{c.known("w1"), c.known("w2"), {"w9", 3, 4}, other}
	c.apply(put("w2", "b"))
	w := c.hub.Prefix("w", known...)
	tookPrefix(t, w, "w2 2→6 +b; w3 at 3: a; w4 at 4: a; w9 unknown")
	if index, ok := w.Progress(); !ok || index != c.index {
		t.Errorf("progress %d, %t, want %d", index, ok, c.index)
	}
	wake := asleep(t, w.Poll)
	c.apply(put("w9", "a"))
	woken(t, wake)
	tookPrefix(t, w, "w9 at 7: a")
	c.apply(put("x1", "b"))
	tookPrefix(t, w, "")
	c.apply(put("w1", "b"), put("w3", "b"))
	tookPrefix(t, w, "w1 1→9 +b; w3 3→10 +b")
}

// It takes few steps at a time, and has progress with the last of them.
func TestPrefixStepsAreFew(t *testing.T) {
	c := newCluster(t)
	const groups = 3*stepsAtOnce + 1
	for i := range groups {
		c.apply(put("w"+itoa(1000+i), "a"))
	}
	w := c.hub.Prefix("w")
	for taken := 0; taken < groups; {
		steps, wake := w.Poll()
		if wake != nil || len(steps) == 0 || len(steps) > stepsAtOnce {
			t.Fatalf("%d steps after %d", len(steps), taken)
		}
		taken += len(steps)
		if _, ok := w.Progress(); ok != (taken == groups) {
			t.Errorf("after %d of %d steps: progress %t", taken, groups, ok)
		}
	}
}

// A watcher older than the list of changed names looks at all groups.
func TestPrefixOverrun(t *testing.T) {
	c := newCluster(t)
	for i := range 4 {
		c.apply(put("w"+itoa(i), "a"))
	}
	w := c.hub.Prefix("w")
	tookPrefix(t, w, "w0 at 1: a; w1 at 2: a; w2 at 3: a; w3 at 4: a")
	c.apply(put("w1", "b"))
	for range hubNames {
		c.apply(putAt("x", "a", "10.0.0.1:"+itoa(1+int(c.index))))
	}
	tookPrefix(t, w, "w1 2→5 +b")
}

// A restore wakes a watcher of a prefix, which gets the changes and the groups that do
// not exist.
func TestPrefixGoesOnAfterARestore(t *testing.T) {
	from := newCluster(t)
	from.apply(put("w1", "a"))
	from.apply(put("w3", "a"))
	var data bytes.Buffer
	if err := from.m.State().WriteSnapshot(&data); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	c.apply(put("w1", "a"))
	c.apply(put("w2", "a"))
	w := c.hub.Prefix("w")
	tookPrefix(t, w, "w1 at 1: a; w2 at 2: a")
	wake := asleep(t, w.Poll)
	if err := c.m.Restore(&data); err != nil {
		t.Fatal(err)
	}
	woken(t, wake)
	tookPrefix(t, w, "w2 unknown; w3 at 2: a")
}

// names describes a list of groups.
func names(l *List) (all []string) {
	for _, g := range l.Groups {
		all = append(all, g.Name)
	}
	return append(all, l.Removed...)
}

// The first list comes at once, also an empty one; later ones come at most ten times a
// second, with all changed groups, each once.
func TestGroupsAreListedAtMostTenTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		w := c.hub.Groups()
		if l, _ := w.Poll(); l == nil || len(l.Groups) != 0 {
			t.Fatalf("first list %+v", l)
		}
		began, lists := time.Now(), 0
		for i := range 1000 { // one change a millisecond
			c.apply(put("g"+itoa(i%3), itoa(i)))
			l, wake := w.Poll()
			if l == nil && wake == nil {
				t.Fatal("neither a list nor a channel")
			}
			if l != nil {
				lists++
				if got := names(l); !slices.IsSorted(got) || len(got) == 0 || len(got) > 3 {
					t.Errorf("list of %v", got)
				}
				if index, ok := w.Progress(); !ok || index != c.index {
					t.Errorf("progress %d, %t", index, ok)
				}
			} else if _, ok := w.Progress(); ok {
				t.Error("progress while changes are held back")
			}
			time.Sleep(time.Millisecond)
		}
		if most := int(time.Since(began) / ListPause); lists > most || lists < most-1 {
			t.Errorf("%d lists in %v", lists, time.Since(began))
		}
		var got []string
		for range 3 {
			l, wake := w.Poll()
			if l != nil {
				got = append(got, names(l)...)
				continue
			}
			if got != nil {
				if index, ok := w.Progress(); ok && index != c.index {
					t.Errorf("progress %d of %d", index, c.index)
				}
			}
			select {
			case <-wake:
			case <-time.After(time.Second):
			}
		}
		if l, wake := w.Poll(); l != nil || wake == nil {
			t.Errorf("%+v with no change", l)
		}
		if index, ok := w.Progress(); !ok || index != c.index {
			t.Errorf("progress %d, %t, want %d", index, ok, c.index)
		}
	})
}

// After a restore, or when it is behind, a watcher gets all groups and the removed ones.
func TestGroupsAfterARestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newCluster(t)
		from.apply(put("b", "x"), put("c", "x"))
		var data bytes.Buffer
		if err := from.m.State().WriteSnapshot(&data); err != nil {
			t.Fatal(err)
		}
		c := newCluster(t)
		c.apply(put("a", "x"), put("b", "x"))
		w := c.hub.Groups()
		if l, _ := w.Poll(); !slices.Equal(names(l), []string{"a", "b"}) {
			t.Errorf("first list %v", names(l))
		}
		time.Sleep(ListPause)
		wake := asleep(t, w.Poll)
		if err := c.m.Restore(&data); err != nil {
			t.Fatal(err)
		}
		<-wake
		if l, _ := w.Poll(); !slices.Equal(names(l), []string{"b", "c", "a"}) || !slices.Equal(l.Removed, []string{"a"}) {
			t.Errorf("after the restore %v, removed %v", names(l), l.Removed)
		}
	})
}

// A watcher of nodes gets changes of nodes and leaders, and of nothing else.
func TestNodesWatch(t *testing.T) {
	c := newCluster(t)
	c.apply(check())
	w := c.hub.Nodes()
	state := func() *fsm.State {
		t.Helper()
		s, wake := w.Poll()
		if s == nil || wake != nil {
			t.Fatal("no change")
		}
		if index, ok := w.Progress(); !ok || index != s.Index() {
			t.Errorf("progress %d, %t", index, ok)
		}
		return s
	}
	state()
	wake := asleep(t, w.Poll)
	c.apply(put("web", "a"))
	select {
	case <-wake:
		t.Error("woken by a member")
	default:
	}
	asleep(t, w.Poll)
	if index, ok := w.Progress(); !ok || index != c.index {
		t.Errorf("progress %d, %t, want %d", index, ok, c.index)
	}
	set := &fsmpb.Command{Op: &fsmpb.Command_SetNode{SetNode: &fsmpb.SetNode{Node: &fsmpb.Node{Id: "n1", Bind: "n:1", Addr: "n:2"}}}}
	c.apply(set)
	woken(t, wake)
	if s := state(); s.Node("n1") == nil {
		t.Error("no node")
	}
	wake = asleep(t, w.Poll)
	c.apply(&fsmpb.Command{Op: &fsmpb.Command_TermStart{TermStart: &fsmpb.TermStart{Node: "n1"}}})
	woken(t, wake)
	if s := state(); s.Leader() != "n1" {
		t.Errorf("leader %q", s.Leader())
	}
}
