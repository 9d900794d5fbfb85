package fsm

import (
	"sync/atomic"
	"time"
)

// RingStats is about the ring builds of a machine since it was made.
type RingStats struct {
	Builds uint64
	// Took is the time of all builds together, without their waits.
	Took time.Duration
	// Pending groups wait for a build or are being built.
	Pending int
}

// ringCounters is what a builder counts. It says when and how often rings were
// built, never what they hold.
type ringCounters struct {
	builds  atomic.Uint64
	took    atomic.Int64
	pending atomic.Int64
}

func (c *ringCounters) built(took time.Duration) {
	c.builds.Add(1)
	c.took.Add(int64(took))
}

// RingStats tells of the ring builds.
func (m *Machine) RingStats() RingStats {
	c := &m.rings.counters
	return RingStats{Builds: c.builds.Load(), Took: time.Duration(c.took.Load()), Pending: int(c.pending.Load())}
}

// MemberCount is the number of members of all groups, whatever their state.
func (s *State) MemberCount() int { return s.members }
