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
			var bare, local time.Duration
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
				bare += mid.Sub(start)
				local += time.Since(mid)
			}
			calls := float64(b.N) * 4096
			runtime.KeepAlive(sink)
			b.ReportMetric(float64(bare.Nanoseconds())/calls, "ring-ns")
			b.ReportMetric(float64(local.Nanoseconds())/calls, "Match-ns")
			b.ReportMetric(float64(local)/float64(bare), "Match-ratio")
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

// benchRing is a Ring of n members without a watch, and the steps that take its
// first member out and put it in again.
func benchRing(b *testing.B, n int) (*Ring, []*step) {
	with := benchView(b, n)
	r := &Ring{group: "g", wake: make(chan struct{}), ready: make(chan struct{}), notice: make(chan struct{}, 1), dirty: make(chan struct{}, 1)}
	r.build = newBuilder(r, 1)
	r.setLatestLocked(with)
	first := with.members[:1]
	return r, []*step{
		{revision: 2, params: with.params, removed: []string{first[0].ID}, left: []string{first[0].ID}},
		{revision: 3, params: with.params, put: first, added: []bool{true}},
	}
}

// apply folds a step and builds the ring after it.
func (r *Ring) apply(s *step) {
	r.receive(s)
	r.build.build()
}

// BenchmarkRingBuild is the cost of one change, from the step that the watch
// brought to the published ring: one member comes or goes. With is what of that
// package ring takes.
func BenchmarkRingBuild(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			r, steps := benchRing(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r.apply(steps[i%2])
			}
		})
		b.Run(fmt.Sprintf("members=%d/With", n), func(b *testing.B) {
			v := benchView(b, n)
			sets := [][]ring.Member{ringMembers(v.members[1:]), ringMembers(v.members)}
			now := v.ring
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				var err error
				if now, err = now.With(v.params, sets[i%2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRingMatchUnderChurn matches on all processors while a member comes or
// goes 100 times a second, or as often as its ring can be built. Each round has
// turns of a twentieth of a second: the bare ring of package ring without
// changes; the bare ring beside the changes, which take processor time whoever
// matches; Match beside the changes; and Match and then a look at the member, which
// is another place in memory to fetch.
//
// The clock is read around every 16 calls, and a sixteenth of the time counts for
// each: a stop of 1 ms is seen as 62 µs, and the clock's own time, some 3 ns a
// call, is in all of them. p50 and p99, in nanoseconds, are of those; ratio is
// p50 to the bare ring's beside the changes; worst16 is the longest time of 16
// calls, collections of garbage and the machine's other work included.
func BenchmarkRingMatchUnderChurn(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) { benchChurn(b, n) })
	}
}

func benchChurn(b *testing.B, n int) {
	keys := benchKeys()
	mask := len(keys) - 1
	r, steps := benchRing(b, n)
	with := r.latest
	bare := with.ring
	ways := []struct {
		name  string
		churn bool
		call  func(key string) int
	}{
		{"still", false, func(key string) int { return bare.Match(key) }},
		{"bare", true, func(key string) int { return bare.Match(key) }},
		{"Match", true, func(key string) int { return use(r.Match(key)) }},
		{"member", true, func(key string) int { m, _ := r.Match(key); return len(m.ID) }},
	}
	took := make([]batches, len(ways))
	changes, churned := 0, time.Duration(0)
	for b.Loop() {
		for i, w := range ways {
			stop := func() int { return 0 }
			if w.churn {
				stop = churn(r, steps)
			}
			start := time.Now()
			took[i].add(matchAll(func(at int) int { return w.call(keys[at&mask]) }))
			if w.churn {
				churned += time.Since(start)
			}
			changes += stop()
		}
	}
	for i, w := range ways {
		p50, p99, worst := took[i].summary()
		b.ReportMetric(p50, w.name+"-p50")
		b.ReportMetric(p99, w.name+"-p99")
		if i > 0 {
			b.ReportMetric(float64(worst.Microseconds()), w.name+"-worst16-us")
		}
		if i > 1 {
			base, _, _ := took[1].summary()
			b.ReportMetric(p50/base, w.name+"-ratio")
		}
	}
	b.ReportMetric(float64(changes)/churned.Seconds(), "changes/s")
}

// use keeps the compiler from leaving the match out.
func use(m *Member, err error) int {
	if m == nil || err != nil {
		return 1
	}
	return 0
}

// churnEvery is 100 changes a second.
const churnEvery = 10 * time.Millisecond

// churn lets a member come and go until it is stopped; it says how often.
func churn(r *Ring, steps []*step) (stop func() int) {
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		tick := time.NewTicker(churnEvery)
		defer tick.Stop()
		start := time.Now()
		for n := 0; ; n++ {
			due := time.Duration(n)*churnEvery <= time.Since(start) // beside busy processors the ticks come late
			for !due {
				select {
				case <-end:
					ended <- n
					return
				case <-tick.C:
					due = time.Duration(n)*churnEvery <= time.Since(start)
				}
			}
			select {
			case <-end:
				ended <- n
				return
			default:
			}
			r.apply(steps[(r.latest.revision+1)%2]) // 2 is without the member, 1 and 3 are with it
		}
	}()
	return func() int {
		close(end)
		return <-ended
	}
}

// batches has the times of 16 calls each.
type batches struct{ took []time.Duration }

func (s *batches) add(took []time.Duration) { s.took = append(s.took, took...) }

// summary returns the median and the 99th percentile of a call in nanoseconds,
// and the longest batch.
func (s *batches) summary() (p50, p99 float64, worst time.Duration) {
	slices.Sort(s.took)
	at := func(percent int) float64 { return float64(s.took[len(s.took)*percent/100].Nanoseconds()) / 16 }
	return at(50), at(99), s.took[len(s.took)-1]
}

// matchAll calls f for a twentieth of a second, on one goroutine a processor.
func matchAll(f func(at int) int) []time.Duration {
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	end := time.Now().Add(time.Second / 20)
	for g := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			sink := 0
			own := make([]time.Duration, 0, 1<<17)
			start := time.Now()
			for at := g << 12; start.Before(end) && len(own) < cap(own); at += 16 {
				for j := range 16 {
					sink += f(at + j)
				}
				now := time.Now()
				own = append(own, now.Sub(start))
				start = now
			}
			runtime.KeepAlive(sink)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
		})
	}
	wg.Wait()
	return all
}
