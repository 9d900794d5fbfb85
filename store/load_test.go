package store_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// The number of elections on a busy machine, by election timeout: 64 writers, and four
// busy goroutines per processor.
func TestMeasureElectionsUnderLoad(t *testing.T) {
	if !*measure {
		t.Skip("takes -measure")
	}
	for _, timeout := range []time.Duration{150 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond} {
		t.Run(timeout.String(), func(t *testing.T) {
			c := storetest.New(t, func(cfg *store.Config) { cfg.ElectionTimeout, cfg.Logger = timeout, nil })
			c.Three()
			before := c.Leader().Term()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			var all sync.WaitGroup
			var acked, turns atomic.Int64
			for range 4 * runtime.GOMAXPROCS(0) {
				all.Go(func() {
					for ctx.Err() == nil {
						turns.Add(1)
					}
				})
			}
			for w := range 64 {
				all.Go(func() {
					for at := w; ctx.Err() == nil; {
						if _, err := c.Nodes()[at%3].Write(ctx, setGroup("web", 64)); err == nil {
							acked.Add(1)
							continue
						}
						at++
						<-time.After(10 * time.Millisecond)
					}
				})
			}
			all.Wait()
			t.Logf("timeout %s: %d elections, %d writes in 15 s", timeout, c.Leader().Term()-before, acked.Load())
		})
	}
}
