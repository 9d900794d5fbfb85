package watch

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// lastUpdate keeps the machine's last update.
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

// BenchmarkApplyBesideWatchers measures a change of a group that nobody watches,
// while the watchers of another group are woken all the time.
func BenchmarkApplyBesideWatchers(b *testing.B) {
	watchers := 10_000
	if testing.Short() {
		watchers = 200
	}
	c := newCluster(b)
	c.apply(put("web", "a"))
	done := make(chan struct{})
	var all sync.WaitGroup
	for range watchers {
		w := c.hub.Group(Known{Group: "web"})
		all.Go(func() { drain(w, done) })
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		c.apply(putAt("web", "a", "10.0.0.2:"+itoa(1+i%60_000)))
		began := time.Now()
		c.apply(putAt("db", "a", "10.0.0.2:"+itoa(1+i%60_000)))
		took = append(took, time.Since(began))
	}
	close(done)
	all.Wait()
	var sum time.Duration
	for _, d := range took {
		sum += d
	}
	slices.Sort(took)
	b.ReportMetric(float64(sum)/float64(len(took)), "ns/op")
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
}

// drain polls a watcher until done is closed.
func drain(w *GroupWatch, done <-chan struct{}) {
	for {
		_, wake := w.Poll()
		if wake == nil {
			continue
		}
		select {
		case <-wake:
		case <-done:
			return
		}
	}
}

// When the list of names is full, a change does not copy it.
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
		t.Errorf("%d names are kept, with room for %d", len(c.hub.names), cap(c.hub.names))
	}
}
