package sdk

import (
	"sync"
	"time"
)

// EventKind is what happened to a registration.
type EventKind int

const (
	// EventRegistered: the seat is held for the first time.
	EventRegistered EventKind = iota + 1
	// EventUnreachable: no node renewed the lease for a whole TTL, or took the
	// registration after a loss. The seat may be gone; the client goes on trying.
	// It is told once in an outage, and again when nodes answer and refuse, once for
	// each change of the reason: ErrWrongCluster says that the cluster was formed anew,
	// and only a new Client registers there.
	EventUnreachable
	// EventRenewed: the lease was renewed after EventUnreachable after all.
	EventRenewed
	// EventLost: the lease is lost; the client registers again.
	EventLost
	// EventReregistered: the seat is held again after a loss.
	EventReregistered
	// EventEnded: the registration is over; Err says why. The last event.
	EventEnded
	// EventDrained: the service owns no keys any more, by Drain.
	EventDrained
	// EventResumed: the service takes part again, by Resume.
	EventResumed
)

// String returns the kind in one word.
func (k EventKind) String() string {
	switch k {
	case EventRegistered:
		return "registered"
	case EventUnreachable:
		return "unreachable"
	case EventRenewed:
		return "renewed"
	case EventLost:
		return "lost"
	case EventReregistered:
		return "reregistered"
	case EventEnded:
		return "ended"
	case EventDrained:
		return "drained"
	case EventResumed:
		return "resumed"
	default:
		return "unknown"
	}
}

// Event tells what happened to a registration.
type Event struct {
	Kind  EventKind
	Group string
	ID    string
	Time  time.Time
	// Err is the reason of EventUnreachable and of EventEnded; nil for others.
	Err error
}

// maxPending bounds the events that wait for one slow OnEvent function; the
// oldest go first.
const maxPending = 16

// dispatcher calls the OnEvent functions from one goroutine of its own, so
// that a slow one delays no heartbeat.
type dispatcher struct {
	mu      sync.Mutex // guards all below
	queue   []*Registration
	pending map[*Registration][]Event
	stopped bool

	wake chan struct{} // holds one token when there is something to do
}

func newDispatcher() *dispatcher {
	return &dispatcher{pending: map[*Registration][]Event{}, wake: make(chan struct{}, 1)}
}

func (d *dispatcher) emit(r *Registration, e Event) {
	d.mu.Lock()
	defer d.signal()
	defer d.mu.Unlock()
	if r.silent { // a beat's answer crossed with the end
		return
	}
	r.silent = e.Kind == EventEnded
	events := d.pending[r]
	if len(events) == 0 {
		d.queue = append(d.queue, r)
	}
	if len(events) == maxPending {
		events = events[1:]
	}
	d.pending[r] = append(events, e)
}

// stop makes run return when everything that waits is delivered.
func (d *dispatcher) stop() {
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
	d.signal()
}

func (d *dispatcher) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *dispatcher) run() {
	for range d.wake {
		for {
			r, events, stopped := d.next()
			if r == nil {
				if stopped {
					return
				}
				break
			}
			for _, e := range events {
				r.service.OnEvent(e)
			}
		}
	}
}

func (d *dispatcher) next() (*Registration, []Event, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		d.queue = nil
		return nil, nil, d.stopped
	}
	r := d.queue[0]
	d.queue = d.queue[1:]
	events := d.pending[r]
	delete(d.pending, r)
	return r, events, d.stopped
}
