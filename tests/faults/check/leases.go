package check

import (
	"cmp"
	"slices"
	"time"
)

// Lease is one member that beats, or stopped to. Its id is never used again,
// so that whatever removes the id ended this lease.
type Lease struct {
	Group string        `json:"group"`
	ID    string        `json:"id"`
	TTL   time.Duration `json:"ttl"`
	// The registration is the first.
	Beats []Beat `json:"beats"`
	// When the member stopped to beat on purpose; 0: it beats to the end.
	Stopped time.Duration `json:"stopped,omitzero"`
}

// Beat is one sign of life. One without an answer may have been heard.
type Beat struct {
	Sent  time.Duration `json:"sent"`
	Acked time.Duration `json:"acked,omitzero"` // 0: no answer
	Lost  bool          `json:"lost,omitzero"`  // the answer was that the lease is gone
}

// Removal is one node's word that a member is gone: from a watch or a read.
type Removal struct {
	Node  string        `json:"node"`
	Group string        `json:"group"`
	ID    string        `json:"id"`
	At    time.Duration `json:"at"` // not before the expiry was committed
}

// LeaseBounds is what the end of a lease depends on.
type LeaseBounds struct {
	// Changes returns how many leaders may have begun between two moments.
	Changes func(from, to time.Duration) int
	// Unavailable is the time between them in which nothing could be committed.
	Unavailable func(from, to time.Duration) time.Duration
	// Slack is for what else stands between the promise and its observer.
	Slack time.Duration
	// End of the observation.
	End time.Duration
	// NoLoss: the faults are such that no member may be lost that beats, which
	// is to say that it sends at least twice in a TTL.
	NoLoss bool
}

// Leases checks both promises. No removal may be seen before (send time of the
// last acknowledged beat) + TTL: it is seen after it was committed, so this
// accuses nobody wrongly. And a member that stopped to beat goes within
// TTL × (1 + leader changes) + slack, not counting the time in which nothing
// could be committed.
func Leases(leases []Lease, removals []Removal, bounds LeaseBounds) (violations []Violation) {
	byID := make(map[[2]string][]Removal)
	for _, r := range removals {
		byID[[2]string{r.Group, r.ID}] = append(byID[[2]string{r.Group, r.ID}], r)
	}
	for _, l := range leases {
		gone := byID[[2]string{l.Group, l.ID}]
		slices.SortFunc(gone, func(a, b Removal) int { return cmp.Compare(a.At, b.At) })
		violations = append(violations, l.early(gone)...)
		violations = append(violations, l.late(gone, bounds)...)
		if bounds.NoLoss && l.Stopped == 0 {
			lost := l.lost()
			at := lost
			if len(gone) > 0 && (lost == 0 || gone[0].At < lost) {
				at = gone[0].At
			}
			// After the end nobody beats any more.
			if at > 0 && at <= bounds.End && l.beatUntil(at) {
				violations = append(violations, violation("leases", "%s/%s (TTL %v) beat all the time and was lost; told so at %v, seen %v", l.Group, l.ID, l.TTL, lost, gone))
			}
		}
	}
	return violations
}

// Shown: that no member is lost was shown only if one beat all the time, from
// before the first fault until the last was healed.
func Shown(leases []Lease, fault, healed time.Duration) []Violation {
	for _, l := range leases {
		if l.Stopped == 0 && len(l.Beats) > 0 && l.Beats[0].Sent < fault && l.beatUntil(healed) {
			return nil
		}
	}
	v := violation("leases", "no member beat all the time from %v to %v: that none is lost was not shown", fault, healed)
	v.Unshown = true
	return []Violation{v}
}

// beatUntil says whether the member sent at least twice in a TTL, until then:
// a client that a busy machine kept from it has no claim.
func (l Lease) beatUntil(end time.Duration) bool {
	var last time.Duration
	for i, b := range l.Beats {
		if b.Sent > end {
			break
		}
		if i > 0 && b.Sent-last > l.TTL/2 {
			return false
		}
		last = b.Sent
	}
	return end-last <= l.TTL/2
}

func (l Lease) lost() time.Duration {
	for _, b := range l.Beats {
		if b.Lost {
			return b.Acked
		}
	}
	return 0
}

// early compares the first removal with the last acknowledged beat.
func (l Lease) early(gone []Removal) (violations []Violation) {
	var last Beat
	for _, b := range l.Beats {
		if b.Acked > 0 && !b.Lost && b.Sent >= last.Sent {
			last = b
		}
	}
	if last.Acked == 0 {
		return nil
	}
	if len(gone) > 0 && gone[0].At < last.Sent+l.TTL {
		r := gone[0]
		violations = append(violations, violation("leases", "%s/%s (TTL %v): %s saw it removed at %v, %v after the sending of a heartbeat (at %v) that was acknowledged (at %v)",
			l.Group, l.ID, l.TTL, r.Node, r.At, r.At-last.Sent, last.Sent, last.Acked))
	}
	for _, b := range l.Beats {
		if b.Lost && b.Acked < last.Sent+l.TTL {
			violations = append(violations, violation("leases", "%s/%s (TTL %v) was told at %v that it is lost, %v after the sending of a heartbeat that was acknowledged",
				l.Group, l.ID, l.TTL, b.Acked, b.Acked-last.Sent))
			break
		}
	}
	return violations
}

// late looks at members that stopped, once their time is over.
func (l Lease) late(gone []Removal, bounds LeaseBounds) []Violation {
	if l.Stopped == 0 || len(l.Beats) == 0 {
		return nil
	}
	var heard time.Duration // a beat without an answer may have been heard
	for _, b := range l.Beats {
		heard = max(heard, b.Sent)
		if b.Lost {
			return nil
		}
	}
	at := bounds.End
	if len(gone) > 0 {
		at = gone[0].At
	}
	// What came after the end of the lease is no excuse for it.
	changes, unavailable := bounds.Changes(heard, at), bounds.Unavailable(heard, at)
	allowed := l.TTL*time.Duration(1+changes) + unavailable + bounds.Slack
	if at-heard <= allowed {
		return nil
	}
	state := "is still there"
	if len(gone) > 0 {
		state = "was seen to go"
	}
	return []Violation{violation("leases", "%s/%s (TTL %v) %s %v after its last heartbeat; allowed are %v with %d leader changes and %v without a quorum",
		l.Group, l.ID, l.TTL, state, at-heard, allowed, changes, unavailable)}
}
