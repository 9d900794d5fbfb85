package rings

import (
	"sync/atomic"
	"time"
)

// Stats are the figures of a cache. Counts are since it was made.
type Stats struct {
	Builds uint64
	// Took is the time of all builds together, without waiting.
	Took time.Duration
	// Pending rings wait to be built or are being built.
	Pending int
	// Rings are kept, and take about Bytes of at most Memory.
	Rings         int
	Bytes, Memory int64
	// Evicted rings were dropped to make room.
	Evicted uint64
	// Busy requests were refused because too many rings waited to be built.
	Busy uint64
	// Verified rings were compared with a rebuilt one, and Mismatches of them
	// differed.
	Verified, Mismatches uint64
}

type counters struct {
	builds, evicted, busy, verified, mismatches atomic.Uint64
	took                                        atomic.Int64
}

func (c *counters) built(took time.Duration) {
	c.builds.Add(1)
	c.took.Add(int64(took))
}

// Stats returns the figures.
func (c *Cache) Stats() Stats {
	s := Stats{
		Builds: c.stats.builds.Load(), Took: time.Duration(c.stats.took.Load()), Evicted: c.stats.evicted.Load(),
		Busy: c.stats.busy.Load(), Verified: c.stats.verified.Load(), Mismatches: c.stats.mismatches.Load(), Memory: c.memory,
	}
	c.entries.Range(func(_, kept any) bool {
		if kept.(*entry).view.Load() != nil {
			s.Rings++
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Bytes, s.Pending = c.used+c.reserved, c.queued[background]+c.queued[foreground]+c.classes[small].running+c.classes[large].running
	return s
}
