package sdk

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// changesOfGroup returns a function that gives a watch of a group with n members the
// next change, of one member, and takes the event.
func changesOfGroup(tb testing.TB, n int) (change func()) {
	tb.Helper()
	cell := &groupCell{group: "web"}
	whole := &step{reset: true, revision: 1, params: ring.Params{VirtualNodes: ring.DefaultVirtualNodes}}
	for i := range n {
		whole.put = append(whole.put, Member{ID: fmt.Sprintf("m-%05d", i), Weight: 1})
	}
	cell.apply(whole)
	if e, ok := cell.event(); !ok || !e.Reset || len(e.Put) != n {
		tb.Fatalf("first event of %d members: %d, %v", n, len(e.Put), ok)
	}
	revision := whole.revision
	return func() {
		revision++
		cell.apply(&step{revision: revision, params: whole.params, put: []Member{{ID: fmt.Sprintf("m-%05d", revision*7919%uint64(n)), Weight: 2}}})
		if e, ok := cell.event(); !ok || e.Reset || len(e.Put) != 1 || len(e.Removed) != 0 {
			tb.Fatalf("event of one change: %+v, %v", e, ok)
		}
	}
}

// changesOfList is changesOfGroup for a watch of the list of n groups.
func changesOfList(tb testing.TB, n int) (change func()) {
	tb.Helper()
	l := &groupList{groups: map[string]Group{}}
	all := &registrypb.GroupList{Index: 1}
	for i := range n {
		all.Groups = append(all.Groups, &registrypb.Group{Name: fmt.Sprintf("g-%05d", i)})
	}
	l.apply(all, true, false)
	if e, ok := l.event(); !ok || !e.Reset || len(e.Groups) != n {
		tb.Fatalf("first event of %d groups: %d, %v", n, len(e.Groups), ok)
	}
	index := all.Index
	return func() {
		index++
		g := &registrypb.Group{Name: fmt.Sprintf("g-%05d", index*7919%uint64(n)), Revision: index}
		l.apply(&registrypb.GroupList{Index: index, Groups: []*registrypb.Group{g}}, false, false)
		if e, ok := l.event(); !ok || e.Reset || len(e.Groups) != 1 || len(e.Removed) != 0 {
			tb.Fatalf("event of one change: %+v, %v", e, ok)
		}
		if l.changed != nil {
			tb.Fatal("the map of the changes outlives their event: after many, each event would go through its whole size")
		}
	}
}

// An event costs what changed, not what the group or the list has.
func TestAnEventCopiesOnlyWhatChanged(t *testing.T) {
	for _, watch := range []struct {
		of      string
		changes func(testing.TB, int) func()
	}{{"a group", changesOfGroup}, {"the list of groups", changesOfList}} {
		change := watch.changes(t, 10_000)
		change()
		const changes = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range changes {
			change()
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / changes; each > 16<<10 {
			t.Errorf("watch of %s: %d bytes are allocated for a change", watch.of, each)
		}
	}
}

// BenchmarkWatchEvent is what a watch adds to one change, from the step that the
// stream brought to the event.
func BenchmarkWatchEvent(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			change := changesOfGroup(b, n)
			b.ReportAllocs()
			for b.Loop() {
				change()
			}
		})
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			change := changesOfList(b, n)
			b.ReportAllocs()
			for b.Loop() {
				change()
			}
		})
	}
}
