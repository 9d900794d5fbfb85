package watch

import (
	"strings"
	"testing"

	"github.com/werbenhu/registry/fsm"
)

// step is a change of a group that has its revision as fingerprint, plus a million.
func step(from, to uint64) *Change {
	return &Change{From: from, FromFingerprint: from + 1e6, Revision: to, Fingerprint: to + 1e6}
}

// The history continues from its revisions, and not from others or from another
// fingerprint.
func TestFeedChainsOrStartsOver(t *testing.T) {
	var f feed
	for _, c := range []*Change{step(0, 12), step(12, 15), step(15, 16)} {
		f.publish(c, 1)
	}
	for from, want := range map[uint64]int{12: 2, 15: 1} {
		if changes, ok := f.after(from, from+1e6); !ok || len(changes) != want || changes[0].From != from {
			t.Errorf("after %d: %d changes, %t, want %d", from, len(changes), ok, want)
		}
		if _, ok := f.after(from, from); ok {
			t.Errorf("after %d: it continues from another fingerprint", from)
		}
	}
	if _, ok := f.after(14, 14+1e6); ok {
		t.Error("it continues from a revision that never was")
	}
	wake := wait(&f.wake)
	if again := wait(&f.wake); again != wake {
		t.Error("two waiters have two channels")
	}
	if got := f.publish(step(16, 17), 1); got != wake {
		t.Error("a waiter is not woken by the next change")
	}
	if got := f.publish(step(17, 18), 1); got != nil {
		t.Error("woken twice")
	}
}

// A history is bounded in changes.
func TestFeedIsBoundedInNumber(t *testing.T) {
	var f feed
	for i := range uint64(3 * feedChanges) {
		f.publish(step(i, i+1), 1)
	}
	if len(f.changes) != feedChanges {
		t.Errorf("%d changes are kept, want %d", len(f.changes), feedChanges)
	}
	if cap(f.changes) > 4*feedChanges {
		t.Errorf("room for %d changes", cap(f.changes))
	}
	last := uint64(3 * feedChanges)
	if c, ok := f.after(last-feedChanges, last-feedChanges+1e6); !ok || len(c) != changesAtOnce {
		t.Errorf("the oldest is followed by %d changes, %t", len(c), ok)
	}
	if _, ok := f.after(last-feedChanges-1, last-feedChanges-1+1e6); ok {
		t.Error("it continues from a dropped change")
	}
}

// It is bounded in members.
func TestFeedIsBoundedInMembers(t *testing.T) {
	var f feed
	for i := range uint64(64) {
		c := step(i, i+1)
		c.Removed = make([]string, feedMembers/10)
		f.publish(c, 1)
	}
	if n := len(f.changes); n != 9 {
		t.Errorf("%d changes of a little more than a tenth of the bound are kept", n)
	}
}

// It is bounded in bytes; the newest change is kept whatever its size.
func TestFeedIsBoundedInBytes(t *testing.T) {
	var f feed
	change := func(i uint64, n int) *Change {
		c := step(i, i+1)
		c.Put = []*fsm.Member{{ID: "m", Meta: []fsm.Pair{{Key: "k", Value: strings.Repeat("x", n)}}}}
		return c
	}
	for i := range uint64(feedChanges - 1) {
		f.publish(change(i+1, feedBytes/100), 1)
	}
	if n := len(f.changes); n < 90 || n > 100 {
		t.Errorf("%d changes of a hundredth of the bound are kept", n)
	}
	f.publish(change(feedChanges, 2*feedBytes), 1)
	if n := len(f.changes); n != 1 || cap(f.changes) > 8 {
		t.Errorf("%d changes, with those in front of them in an array of %d; want the one that is larger than the bound", n, cap(f.changes))
	}
	f.publish(change(feedChanges+1, 1), 1)
	if members, bytes := f.changes[0].size(); len(f.changes) != 1 || f.members != members || f.bytes != bytes {
		t.Errorf("%d changes, %d members, %d bytes", len(f.changes), f.members, f.bytes)
	}
}

// The histories of all groups together are bounded.
func TestManyGroupsRememberLessEach(t *testing.T) {
	for groups, want := range map[int]int{
		1: feedChanges, 2*feedGroups - 1: feedChanges, 2 * feedGroups: feedChanges / 2, fsm.MaxGroups: feedLeast,
	} {
		var f feed
		const last = 2 * feedChanges
		for i := range uint64(last) {
			c := step(i, i+1)
			c.Removed = []string{"m"}
			f.publish(c, groups)
		}
		if n := len(f.changes); n != want {
			t.Errorf("%d groups: %d changes are kept, want %d", groups, n, want)
		}
		from := uint64(last - want)
		if _, ok := f.after(from, from+1e6); !ok {
			t.Errorf("%d groups: they do not continue", groups)
		}
	}
}
