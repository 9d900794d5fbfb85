package sdk

import (
	"slices"

	"github.com/werbenhu/registry/ring"
)

// RingChange is which keys have another owner than before.
type RingChange struct {
	Group string
	// From and To are the revisions before and after; From is 0 if there was
	// no ring. A slow function gets several changes as one.
	From, To uint64
	// Rebuilt: the cluster lost a part of its log in between; To may be below From.
	Rebuilt bool
	// Moved are the ranges of key hashes [Lo, Hi) with another owner, in ascending
	// order: a key moved exactly if its ring.Hash is in one. It is empty for a change
	// of an address, for instance.
	Moved []ring.Range
	// Before and After are the rings; Before is nil if there was none.
	Before, After *View
}

// subscription is an OnChange function and the last view that it got.
type subscription struct {
	f    func(RingChange)
	last *View
}

// OnChange calls f after every later change of the ring, from a goroutine of its own.
// A slow f delays neither the ring nor its Match and gets the missed changes as one:
// the ranges of all calls together are the whole change. stop ends it; f may still
// be running when stop returns.
func (r *Ring) OnChange(f func(RingChange)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &subscription{f: f, last: r.latest}
	r.subs = append(r.subs, s)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.subs = slices.DeleteFunc(slices.Clone(r.subs), func(o *subscription) bool { return o == s })
	}
}

func (r *Ring) notifyLoop() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.notice:
		}
		r.mu.Lock()
		subs, now := slices.Clone(r.subs), r.latest
		r.mu.Unlock()
		for _, s := range subs {
			if s.last != now { // only this goroutine changes it
				change := changeBetween(s.last, now)
				s.last = now
				s.f(change)
			}
		}
	}
}

func changeBetween(before, after *View) RingChange {
	c := RingChange{Group: after.group, To: after.revision, Before: before, After: after}
	old, _ := ring.New(ring.DefaultParams(), nil) // these parameters are valid
	if before != nil {
		c.From, c.Rebuilt, old = before.revision, before.epoch != after.epoch, before.ring
	}
	c.Moved = ring.Diff(old, after.ring)
	return c
}

// Published returns the current view and a channel that is closed when another view
// replaces it: after a change, and when the ring exceeds its maximum age, is
// confirmed again, or ends. It is for code that passes views on; OnChange reports
// what moved.
func (r *Ring) Published() (*View, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view.Load(), r.wake
}
