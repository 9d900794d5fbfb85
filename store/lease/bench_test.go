package lease

import (
	"fmt"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
)

func BenchmarkRenew(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			t := New(nil)
			t.active = true
			ids := make([]uint64, n)
			for i := range ids {
				ids[i] = uint64(i + 1)
				t.putLocked("web", &fsm.Member{ID: fmt.Sprint(i), LeaseID: ids[i], TTL: time.Hour}, t.now())
			}
			b.ReportAllocs()
			at := 0
			for b.Loop() {
				_, _ = t.Renew(ids[at:at+1], nil)
				at = (at + 1) % n
			}
		})
	}
}

// BenchmarkDue is the expiry loop's cost when every lease was renewed since it
// was queued.
func BenchmarkDue(b *testing.B) {
	const n = 100_000
	b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
		t := New(nil)
		t.active = true
		for i := range n {
			t.putLocked("web", &fsm.Member{ID: fmt.Sprint(i), LeaseID: uint64(i + 1), TTL: time.Hour}, 0)
		}
		for b.Loop() {
			b.StopTimer()
			for _, l := range t.byID {
				l.queuedAt = 0
			}
			b.StartTimer()
			t.Due(1000)
		}
	})
}
