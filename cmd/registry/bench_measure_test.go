package main

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// timed has callers that each take 300 ms for a call, for a second.
func timed(t *testing.T, rate float64, callers int) (s *schedule, took []time.Duration) {
	s = newSchedule(t.Context(), rate, time.Second)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for due, ok := s.next(); ok; due, ok = s.next() {
				time.Sleep(300 * time.Millisecond)
				mu.Lock()
				took = append(took, time.Since(due))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return s, took
}

// With a rate, a call that is late because no caller is free counts its wait, and one
// that never begins is counted; without, a slow system gets fewer calls.
func TestScheduleCountsWaits(t *testing.T) {
	for name, c := range map[string]struct {
		rate           float64
		callers, calls int
		longest        time.Duration
		missed         int
	}{
		"no rate":        {0, 2, 8, 300 * time.Millisecond, 0},
		"enough callers": {10, 3, 10, 300 * time.Millisecond, 0},
		"too few":        {10, 1, 4, 900 * time.Millisecond, 6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, took := timed(t, c.rate, c.callers)
				longest := time.Duration(0)
				for _, d := range took {
					longest = max(longest, d)
				}
				if len(took) != c.calls || longest != c.longest || s.missed() != c.missed {
					t.Errorf("%d calls, the longest %v, %d missed; want %d, %v, %d", len(took), longest, s.missed(), c.calls, c.longest, c.missed)
				}
			})
		})
	}
}
