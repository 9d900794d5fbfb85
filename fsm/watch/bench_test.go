package watch

import (
	"runtime"
	"testing"

	"github.com/werbenhu/registry/fsm"
)

// lastUpdate keeps what the machine told last.
type lastUpdate struct{ *fsm.Update }

func (l *lastUpdate) Applied(u *fsm.Update) { l.Update = u }
func (l *lastUpdate) Restored(*fsm.State)   {}

// BenchmarkApplied measures what the hub adds to one change of a group that
// nobody watches.
func BenchmarkApplied(b *testing.B) {
	var last lastUpdate
	c := newCluster(b, &last)
	for i := range 2 * hubNames {
		c.apply(put("web", itoa(i)))
	}
	b.ReportAllocs()
	for b.Loop() {
		c.hub.Applied(last.Update)
	}
}

// With as many names remembered as may be, a change costs no copy of them.
func TestNamesAreNotCopiedForEveryChange(t *testing.T) {
	var last lastUpdate
	c := newCluster(t, &last)
	for i := range 2 * hubNames {
		c.apply(put("web", itoa(i)))
	}
	const changes = 4 * hubNames
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range changes {
		c.hub.Applied(last.Update)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / changes; each > 4<<10 {
		t.Errorf("%d bytes are allocated for a change", each)
	}
	if len(c.hub.names) != hubNames || cap(c.hub.names) > 4*hubNames {
		t.Errorf("%d names are remembered, with room for %d", len(c.hub.names), cap(c.hub.names))
	}
}
