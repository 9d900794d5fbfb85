package sdk

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/werbenhu/registry/ring"
)

// BenchmarkRingPublish is how long changes take from the step that the watch
// brought to the published ring, while a member comes or goes 40 times a second:
// the mean and the 99th percentile, and the share of one processor that With
// took, by elapsed time. One round is one change; 400 of them take 10 s.
func BenchmarkRingPublish(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) { benchPublish(b, n) })
	}
}

func benchPublish(b *testing.B, n int) {
	r, steps := benchRing(b, n)
	r.build = newBuilder(r, defaultBuildShare)
	var busy time.Duration // of the builder's goroutine
	grow := r.build.extend
	r.build.extend = func(prev *ring.Ring, p ring.Params, ms []ring.Member) (*ring.Ring, error) {
		start := time.Now()
		defer func() { busy += time.Since(start) }()
		return grow(prev, p, ms)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.build.run(ctx)
	}()
	began := time.Now()
	tick := time.NewTicker(time.Second / 40)
	defer tick.Stop()
	var took []time.Duration
	var due []time.Time // of the steps that are not published yet
	for sent := 0; sent < b.N || len(due) > 0; {
		_, changed := r.Published()
		select {
		case <-tick.C:
			if sent < b.N {
				s := *steps[sent%2]
				s.revision = uint64(sent + 2)
				due = append(due, time.Now())
				r.receive(&s)
				sent++
			}
		case <-changed:
		}
		for v := r.View(); len(due) > 0 && v.revision >= uint64(sent+2-len(due)); due = due[1:] {
			took = append(took, time.Since(due[0]))
		}
	}
	elapsed := time.Since(began)
	cancel()
	<-done
	slices.Sort(took)
	sum := time.Duration(0)
	for _, d := range took {
		sum += d
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(sum)/float64(len(took)), "mean-ms")
	b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
	b.ReportMetric(float64(busy)/float64(elapsed), "processor")
	b.ReportMetric(float64(r.Stats().Builds), "builds")
}
