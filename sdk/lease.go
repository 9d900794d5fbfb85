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
	renewing    phase = iota // in keeper.beats
	lost                     // in keeper.losses
	registering              // a worker has it
	released
)

// lease is the keeper's side of a registration. After newLease, the keeper's
// loop alone touches it.
type lease struct {
	reg *Registration
	id  uint64
	ttl time.Duration // as the server granted it

	phase       phase
	due         time.Time // of the next heartbeat, or of the next registration after a loss
	index       int       // in the heap that the phase names
	renewed     time.Time // when the last acknowledged heartbeat was sent
	unreachable notice    // of EventUnreachable, until the lease is renewed
	tries       int       // failed registrations since the loss
	idle        chan struct{}
}

// newLease makes the lease of a registration requested at that time. Its TTL runs
// from then: the server's own TTL cannot have started earlier.
func newLease(r *Registration, resp *registrypb.RegisterResponse, requested time.Time) *lease {
	l := &lease{reg: r, idle: make(chan struct{}), index: -1}
	l.granted(resp, requested)
	return l
}

func (l *lease) granted(resp *registrypb.RegisterResponse, requested time.Time) {
	l.id, l.ttl, l.renewed = resp.GetLeaseId(), l.reg.service.TTL, requested
	if ttl := resp.GetTtl().AsDuration(); ttl > 0 {
		l.ttl = ttl
	}
	l.phase, l.tries = renewing, 0
	l.due = requested.Add(l.interval(newJitter()))
}

// jitter is the part by which an interval between two heartbeats is shortened, so that
// clients do not send at the same time. It is below a fifth.
type jitter float64

func newJitter() jitter { return jitter(rand.Float64() / 5) }

// interval between two heartbeats: a third of the TTL, less the jitter.
func (l *lease) interval(less jitter) time.Duration {
	return time.Duration(float64(l.ttl) / 3 * float64(1-less))
}

// early is how long before it is due a lease may be renewed with others: what the largest
// jitter takes off, so that leases registered together are in one message from their first
// heartbeat.
func (l *lease) early() time.Duration { return l.ttl / 15 }

// answerTimeout bounds the answer to a heartbeat: a quarter of the TTL leaves time to
// try two more nodes.
func (l *lease) answerTimeout() time.Duration {
	return min(max(l.ttl/4, minAnswerTimeout), maxAnswerTimeout)
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

// first returns the lease that is due first; nil without one.
func (h leaseHeap) first() *lease {
	if len(h) == 0 {
		return nil
	}
	return h[0]
}
