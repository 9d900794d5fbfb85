package rings

import (
	"fmt"
	"testing"
)

// BenchmarkGetWarm is a reader's way to the newest ring.
func BenchmarkGetWarm(b *testing.B) {
	c := newCluster(b, 0)
	c.fill("web", 100)
	c.newest("web")
	s := c.m.State()
	g := s.Group("web")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := c.cache.Get(b.Context(), s, g, Freshness{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGetCold is the first question for a group's ring.
func BenchmarkGetCold(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			c := newCluster(b, 0)
			c.fill("web", n)
			for b.Loop() {
				c.newest("web")
				b.StopTimer()
				c.cache.Restored(c.m.State())
				b.StartTimer()
			}
		})
	}
}
