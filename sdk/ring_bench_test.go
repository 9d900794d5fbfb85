package sdk

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/ring"
)

// benchSizes are numbers of members at 256 points each.
var benchSizes = []int{10, 100, 1000}

var benchKeys = sync.OnceValue(func() []string {
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-id-%08d", i*7919%99999989)
	}
	return keys
})

func benchView(tb testing.TB, n int) *View {
	ms := make([]Member, n)
	for i := range ms {
		ms[i] = Member{ID: fmt.Sprintf("webserver-%06d", i), Addr: "10.0.0.1:80", Weight: 1}
	}
	bare, err := ring.New(ring.DefaultParams(), ringMembers(ms))
	if err != nil {
		tb.Fatal(err)
	}
	v, err := buildView("g", nil, &step{reset: true, revision: 1, params: bare.Params(), put: ms, fingerprint: bare.Fingerprint()})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// BenchmarkRingMatch compares Match of a Ring with Match of package ring, and
// prints the ratio, one after the other in each round; and on all cores.
func BenchmarkRingMatch(b *testing.B) {
	keys := benchKeys()
	mask := len(keys) - 1
	for _, n := range benchSizes {
		r := &Ring{group: "g"}
		v := benchView(b, n)
		r.view.Store(v)
		b.Run(fmt.Sprintf("members=%d/side-by-side", n), func(b *testing.B) {
			b.ReportAllocs()
			var bare, local, owner time.Duration
			sink := 0
			for i := 0; b.Loop(); i++ {
				const batch = 4096
				at := i * batch
				start := time.Now()
				for j := range batch {
					sink += v.ring.Match(keys[(at+j)&mask])
				}
				mid := time.Now()
				for j := range batch {
					m, err := r.Match(keys[(at+j)&mask])
					if err != nil {
						b.Fatal(err)
					}
					sink += len(m.ID)
				}
				end := time.Now()
				for j := range batch {
					m, err := r.Owner(keys[(at+j)&mask])
					if err != nil {
						b.Fatal(err)
					}
					sink += m.Weight
				}
				bare += mid.Sub(start)
				local += end.Sub(mid)
				owner += time.Since(end)
			}
			calls := float64(b.N) * 4096
			runtime.KeepAlive(sink)
			b.ReportMetric(float64(bare.Nanoseconds())/calls, "ring-ns")
			b.ReportMetric(float64(local.Nanoseconds())/calls, "Match-ns")
			b.ReportMetric(float64(owner.Nanoseconds())/calls, "Owner-ns")
			b.ReportMetric(float64(local)/float64(bare), "Match-ratio")
			b.ReportMetric(float64(owner)/float64(bare), "Owner-ratio")
		})
		b.Run(fmt.Sprintf("members=%d/parallel", n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := r.Match(keys[i&mask]); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
		b.Run(fmt.Sprintf("members=%d/batch", n), func(b *testing.B) {
			b.ReportAllocs()
			dst := make([]*Member, 0, 1024)
			for i := 0; b.Loop(); i++ {
				at := i * 1024 & mask
				if _, err := r.MatchBatch(dst, keys[at:at+1024]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/key")
		})
	}
}

// BenchmarkRingApply is the cost of one change: one member comes or goes.
func BenchmarkRingApply(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			with := benchView(b, n)
			less, err := with.ring.With(with.ring.Params(), ringMembers(with.members[1:]))
			if err != nil {
				b.Fatal(err)
			}
			remove := &step{revision: 2, params: with.ring.Params(), removed: []string{with.members[0].ID}, fingerprint: less.Fingerprint()}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := buildView("g", with, remove); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRingMatchUnderChurn matches on all cores while one of the members
// comes or goes 100 times a second. p99 is of batches of 64 keys, for one key.
func BenchmarkRingMatchUnderChurn(b *testing.B) {
	keys := benchKeys()
	mask := len(keys) - 1
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			r := &Ring{group: "g", wake: make(chan struct{}), ready: make(chan struct{}), notice: make(chan struct{}, 1), dirty: make(chan struct{}, 1)}
			with := benchView(b, n)
			less, err := with.ring.With(with.ring.Params(), ringMembers(with.members[1:]))
			if err != nil {
				b.Fatal(err)
			}
			steps := []*step{
				{revision: 2, params: with.ring.Params(), removed: []string{with.members[0].ID}, fingerprint: less.Fingerprint()},
				{revision: 3, params: with.ring.Params(), put: with.members[:1], fingerprint: with.fingerprint},
			}
			r.takeOverLocked(with)
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-tick.C:
					}
					next, err := buildView("g", r.good, steps[i%2])
					if err != nil {
						b.Error(err)
						return
					}
					r.mu.Lock()
					r.takeOverLocked(next)
					r.mu.Unlock()
				}
			}()
			var mu sync.Mutex
			var took []time.Duration
			b.RunParallel(func(pb *testing.PB) {
				const batch = 64
				own := make([]time.Duration, 0, 1<<16)
				start := time.Now()
				for i := 1; pb.Next(); i++ {
					if _, err := r.Owner(keys[i&mask]); err != nil {
						b.Error(err)
						return
					}
					if i%batch == 0 {
						now := time.Now()
						if len(own) < cap(own) {
							own = append(own, now.Sub(start)/batch)
						}
						start = now
					}
				}
				mu.Lock()
				took = append(took, own...)
				mu.Unlock()
			})
			close(stop)
			<-done
			if len(took) > 0 {
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
			}
		})
	}
}
