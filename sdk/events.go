package sdk

import (
	"sync"
	"time"
)

// EventKind is what happened to a registration.
type EventKind int

const (
	// EventRegistered: the service is registered for the first time.
	EventRegistered EventKind = iota + 1
	// EventUnreachable: no node renewed the lease for a whole TTL, or took the
	// registration after a loss; or nodes refuse the client's token, with
	// ErrUnauthenticated, ErrPermissionDenied or ErrNotOwner. The member may be removed;
	// the client keeps trying. It is sent once in an outage, and again when nodes refuse,
	// once for each reason: after ErrWrongCluster, a cluster that was formed anew, only a
	// new Client can register.
	EventUnreachable
	// EventRenewed: the lease was renewed after EventUnreachable.
	EventRenewed
	// EventLost: the lease is lost; the client registers again.
	EventLost
	// EventReregistered: the service is registered again after a loss.
	EventReregistered
	// EventEnded: the registration has ended; Err is the reason. The last event.
	EventEnded
	// EventDrained: Drain took the service's keys.
	EventDrained
	// EventResumed: Resume made the service active again.
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

// Event is what happened to a registration.
type Event struct {
	Kind  EventKind
	Group string
	ID    string
	Time  time.Time
	// Err is the reason of EventUnreachable and of EventEnded; nil for others.
	Err error
}

// maxPending bounds the events that wait for one slow OnEvent function; the oldest
// are dropped.
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
	defer signal(d.wake)
	defer d.mu.Unlock()
	if r.ended { // a late answer to a heartbeat
		return
	}
	r.ended = e.Kind == EventEnded
	events := d.pending[r]
	if len(events) == 0 {
		d.queue = append(d.queue, r)
	}
	if len(events) == maxPending {
		events = events[1:]
	}
	d.pending[r] = append(events, e)
}

// stop makes run return when all pending events are delivered.
func (d *dispatcher) stop() {
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
	signal(d.wake)
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
