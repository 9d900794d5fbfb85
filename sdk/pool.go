package sdk

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Bounds of how long an endpoint that failed is suspect. The time doubles with
// every failure in a row.
const (
	suspectMin = 500 * time.Millisecond
	suspectMax = 30 * time.Second
)

// pool has the known nodes and the one that calls go to.
//
// Example: A and B are given, C was learnt. Calls go to B, the home chosen at
// random. B dies: the first call that fails marks B suspect and makes A current,
// where all later calls go. A minute later the refresher asks B again; when B
// answers, it becomes current. If B moved to D instead, A or C list D: a new home
// is chosen from A, C and D, and B is tried only after all others.
type pool struct {
	warm     chan struct{} // closed when a node has answered
	warmOnce sync.Once

	mu      sync.Mutex  // guards the rest
	all     []*endpoint // seeds in the order given, then the learnt
	home    *endpoint
	current *endpoint
	closed  bool
}

func newPool(addrs []string) *pool {
	p := &pool{warm: make(chan struct{})}
	for _, a := range addrs {
		p.all = append(p.all, &endpoint{addr: a, seed: true})
	}
	// Clients that are given the same list spread over it.
	p.home = p.all[rand.IntN(len(p.all))]
	p.current = p.home
	return p
}

// pick returns the best endpoint that was not tried; nil when all were. Healthy
// ones come first, and the current one before the others.
func (p *pool) pick(now time.Time, tried map[*endpoint]bool) *endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pickLocked(now, tried)
}

func (p *pool) pickLocked(now time.Time, tried map[*endpoint]bool) *endpoint {
	start := 0
	for i, e := range p.all {
		if e == p.current {
			start = i
		}
	}
	var best *endpoint
	for i := range p.all {
		e := p.all[(start+i)%len(p.all)]
		if !tried[e] && better(e, best, now) {
			best = e
		}
	}
	return best
}

// better prefers healthy endpoints, among them the seeds that have not failed, and
// among suspect ones the one that is suspect for the shortest time.
func better(e, best *endpoint, now time.Time) bool {
	if best == nil {
		return true
	}
	ok, bestOK := !e.suspect.After(now), !best.suspect.After(now)
	switch {
	case ok != bestOK:
		return ok
	case !ok:
		return e.suspect.Before(best.suspect)
	default:
		return e.seed && !best.seed && e.failures == 0
	}
}

// failed moves calls away from e. With nodeFault e itself is at fault and becomes
// suspect; without, it has no leader, for instance.
func (p *pool) failed(e *endpoint, now time.Time, nodeFault bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if nodeFault && !e.suspect.After(now) { // one outage counts once, however many calls see it
		e.suspect = now.Add(min(suspectMin<<min(e.failures, 10), suspectMax))
		e.failures++
		e.works = false
		p.moveHomeLocked()
	}
	if e == p.current {
		if next := p.pickLocked(now, map[*endpoint]bool{e: true}); next != nil {
			p.current = next
		}
	}
}

// worked forgets e's failures and makes it current if the current one is suspect.
// An answer may come after its endpoint was dropped, and then changes nothing.
func (p *pool) worked(e *endpoint, now time.Time) {
	p.warmOnce.Do(func() { close(p.warm) })
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.dropped {
		return
	}
	e.suspect, e.failures, e.works = time.Time{}, 0, true
	if p.current.suspect.After(now) {
		p.current = e
	}
}

// returnHome makes the home current again.
func (p *pool) returnHome() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = p.home
}

// homeIfAway returns the home if calls go elsewhere, nil otherwise.
func (p *pool) homeIfAway() *endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.home == p.current {
		return nil
	}
	return p.home
}

// preferred returns the endpoint that a new call would go to.
func (p *pool) preferred(now time.Time) *endpoint { return p.pick(now, nil) }

// healthy returns the endpoint of an address if it is known and not suspect.
func (p *pool) healthy(addr string, now time.Time) *endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.all {
		if e.addr == addr && !e.suspect.After(now) {
			return e
		}
	}
	return nil
}

// add learns one address.
func (p *pool) add(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addLocked(addr, false)
}

func (p *pool) addLocked(addr string, listed bool) {
	if p.closed || checkAddr(addr) != nil {
		return
	}
	for _, e := range p.all {
		if e.addr == addr {
			return
		}
	}
	p.all = append(p.all, &endpoint{addr: addr, listed: listed})
}

// learn replaces the learnt addresses and closes those that are not listed. While
// no listed address is known to work, working ones are kept: a node may list
// addresses that this client cannot reach.
func (p *pool) learn(addrs []string) {
	known := make(map[string]bool, len(addrs))
	for _, a := range addrs {
		known[a] = true
	}
	p.mu.Lock()
	proven := false
	for _, e := range p.all {
		e.listed = known[e.addr]
		proven = proven || e.listed && e.works
	}
	var kept, dropped []*endpoint
	for _, e := range p.all {
		if e.seed || e.listed || e == p.current || e.works && !proven {
			kept = append(kept, e)
		} else {
			e.dropped = true
			dropped = append(dropped, e)
		}
	}
	p.all = kept
	for _, a := range addrs {
		p.addLocked(a, true)
	}
	p.moveHomeLocked()
	p.mu.Unlock()
	for _, e := range dropped {
		_ = e.close() // a call on it tries another node
	}
}

// moveHomeLocked chooses another home, at random so that clients spread, when the
// home's address is not listed and it failed or was only learnt.
func (p *pool) moveHomeLocked() {
	if p.home.listed || p.home.seed && p.home.failures == 0 {
		return
	}
	var listed []*endpoint
	for _, e := range p.all {
		if e.listed {
			listed = append(listed, e)
		}
	}
	if len(listed) > 0 {
		p.home = listed[rand.IntN(len(listed))]
	}
}

// addrs lists the known addresses.
func (p *pool) addrs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]string, len(p.all))
	for i, e := range p.all {
		out[i] = e.addr
	}
	return out
}

func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	all := p.all
	p.mu.Unlock()
	var errs []error
	for _, e := range all {
		errs = append(errs, e.close())
	}
	return errors.Join(errs...)
}
