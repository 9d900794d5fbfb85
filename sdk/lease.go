package sdk

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// phase of a lease.
type phase int

const (
	beating     phase = iota // in keeper.beats
	lost                     // in keeper.losses
	registering              // a worker has it
	gone
)

// lease is the keeper's side of a registration. After newLease, the keeper's
// loop alone touches it.
type lease struct {
	reg *Registration
	id  uint64
	ttl time.Duration // as the server granted it

	phase   phase
	due     time.Time // of the next beat, or of the next registration after a loss
	index   int       // in the heap that the phase names
	renewed time.Time // when the last acknowledged beat was sent
	late    notice    // of EventUnreachable, until the lease is renewed
	tries   int       // registrations in vain since the loss
	idle    chan struct{}
}

// newLease takes over a registration that was asked for at that time. The
// lease counts from then: the server's own count cannot have begun earlier.
func newLease(r *Registration, resp *registrypb.RegisterResponse, asked time.Time) *lease {
	l := &lease{reg: r, idle: make(chan struct{}), index: -1}
	l.granted(resp, asked)
	return l
}

func (l *lease) granted(resp *registrypb.RegisterResponse, asked time.Time) {
	l.id, l.ttl, l.renewed = resp.GetLeaseId(), l.reg.service.TTL, asked
	if ttl := resp.GetTtl().AsDuration(); ttl > 0 {
		l.ttl = ttl
	}
	l.phase, l.tries = beating, 0
	l.due = asked.Add(l.interval())
}

// interval between two beats: a third of the TTL, less a jitter that keeps
// leases made together from beating together for ever.
func (l *lease) interval() time.Duration {
	d := l.ttl / 3
	return d - rand.N(d/5+1)
}

// patience is how long an answer to a beat may take: with a quarter of the TTL,
// a beat that is lost on one node still reaches two others in time.
func (l *lease) patience() time.Duration {
	return min(max(l.ttl/4, minPatience), maxPatience)
}

// leaseHeap is ordered by due.
type leaseHeap []*lease

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *leaseHeap) Push(x any) {
	l := x.(*lease)
	l.index = len(*h)
	*h = append(*h, l)
}

func (h *leaseHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.index = -1
	return l
}

// put adds l, or moves it to its new due time.
func (h *leaseHeap) put(l *lease, due time.Time) {
	l.due = due
	if l.index >= 0 {
		heap.Fix(h, l.index)
		return
	}
	heap.Push(h, l)
}

func (h *leaseHeap) drop(l *lease) {
	if l.index >= 0 {
		heap.Remove(h, l.index)
	}
}

// first returns the lease that is due first, nil when there is none.
func (h leaseHeap) first() *lease {
	if len(h) == 0 {
		return nil
	}
	return h[0]
}
