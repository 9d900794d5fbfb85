package sdk

import (
	"sync"
	"time"
)

// staleness records when the shown state was last known to be current.
//
// A node confirms what it has sent. Where a ring must be built before a state is
// shown, the confirmation waits for the ring.
//
// Example: state 7 is shown when 8 arrives, confirmed as of 12:00:00. While the
// ring of 8 is built, 9 arrives, confirmed as of 12:00:02. When 8 is shown, it is
// as of 12:00:00; when 9 is, as of 12:00:02.
type staleness struct {
	mu      sync.Mutex // guards the rest
	asOf    time.Time
	shown   uint64         // number of the state
	pending []confirmation // of states not shown yet, in order
}

type confirmation struct {
	number uint64
	asOf   time.Time
}

// maxConfirmations bounds the pending confirmations. At the bound the newest one
// replaces the one before it: the next state shown may be that of the first.
const maxConfirmations = 16

// confirm records that the shown state was current at a time.
func (f *staleness) confirm(asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirmLocked(asOf)
}

func (f *staleness) confirmLocked(asOf time.Time) {
	if asOf.After(f.asOf) {
		f.asOf = asOf
	}
}

// confirmState records that the state of that number was current at a time. It
// reports true if that state is shown already.
func (f *staleness) confirmState(number uint64, asOf time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if number <= f.shown {
		f.confirmLocked(asOf)
		return true
	}
	if n := len(f.pending); n == maxConfirmations || n > 0 && f.pending[n-1].number == number {
		f.pending = f.pending[:n-1]
	}
	f.pending = append(f.pending, confirmation{number, asOf})
	return false
}

// reached records that the state of that number is shown. It reports true if
// confirmations were pending for it.
func (f *staleness) reached(number uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown = number
	n := 0
	for n < len(f.pending) && f.pending[n].number <= number {
		f.confirmLocked(f.pending[n].asOf)
		n++
	}
	f.pending = f.pending[n:]
	return n > 0
}

func (f *staleness) since() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asOf
}

// ageOf is the larger of the ages by the monotonic and the wall clock: a monotonic
// clock may stop while the machine sleeps, and a copy on disk has none.
func ageOf(asOf time.Time) time.Duration {
	if asOf.IsZero() {
		return neverCurrent
	}
	now := time.Now()
	return max(now.Sub(asOf), now.Round(0).Sub(asOf.Round(0)), 0)
}

// neverCurrent is the age of a state that no node has confirmed.
const neverCurrent = time.Duration(1<<63 - 1)
