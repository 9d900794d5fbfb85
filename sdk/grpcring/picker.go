package grpcring

import (
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/routing"
)

// errKeyless: a call has no key.
var errKeyless = status.Error(codes.Internal,
	"grpcring: the call has no key: give one by grpcring.WithKey, or the connection grpcring.WithKeyHeader or WithKeyless(Spread)")

// slot is a member of a view; it has no child if the member owns no keys.
type slot struct {
	child *child
	held  bool
}

// picker routes calls by one state of the ring. It never changes; only the states
// of its children do.
//
// Example: the key's owners are A, B, C and D, and there is one fallback. With A
// ready the call goes to A. With A unreachable it goes to B, and to C never; if
// B is unreachable too it fails with A's error. With A held it goes to B, or to C
// if B is unreachable; to A only if all others are held as well.
type picker struct {
	cfg   *config
	ring  *ring.Ring
	slots []slot // by the ring's index
	route routing.Route
	owner metadata.MD // the route of calls to the owner; shared and never changed

	active, held []*child // for calls without a key
	next         *atomic.Uint32
}

func newPicker(cfg *config, v *sdk.View, slots []slot, next *atomic.Uint32) *picker {
	p := &picker{cfg: cfg, ring: v.Ring(), slots: slots, route: routing.OfView(v), next: next}
	p.owner = p.metadata(0)
	for _, s := range slots {
		switch {
		case s.child == nil:
		case s.held:
			p.held = append(p.held, s.child)
		default:
			p.active = append(p.active, s.child)
		}
	}
	return p
}

// metadata returns the route of a call, if calls carry one.
func (p *picker) metadata(fallback int) metadata.MD {
	if !p.cfg.Route {
		return nil
	}
	r := p.route
	r.Fallback = fallback
	return metadata.MD{routeKey: {r.String()}}
}

var routeKey = strings.ToLower(routing.RouteHeader)

// Pick implements balancer.Picker.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	key := p.cfg.keyOf(info.Ctx)
	if key == "" {
		if p.cfg.Keyless != Spread {
			return balancer.PickResult{}, errKeyless
		}
		return p.spread()
	}
	s := p.slots[p.ring.Match(key)]
	if !s.held && s.child.load() == connectivity.Ready {
		return s.child.pick(p.owner)
	}
	return p.candidate(key)
}

// pick sends a call to the child. If the child was dropped, gRPC asks the newer picker.
func (c *child) pick(md metadata.MD) (balancer.PickResult, error) {
	if !c.begin() {
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	return balancer.PickResult{SubConn: c.sc, Done: c.endCall, Metadata: md}, nil
}

// candidate picks the first member that serves the key and is not unreachable.
func (p *picker) candidate(key string) (balancer.PickResult, error) {
	var buf [8]int
	serving := p.ring.Serving(buf[:0], key, 1+p.cfg.Fallbacks)
	for i, m := range serving {
		s := p.slots[m]
		switch s.child.load() {
		case connectivity.Ready:
			return s.child.pick(p.metadata(i))
		case connectivity.Idle:
			s.child.connect()
			return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
		case connectivity.Connecting:
			return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
		}
	}
	return balancer.PickResult{}, p.slots[serving[0]].child.err()
}

// spread picks the next ready member and connects at most one idle member. It uses
// held members only when no other can be reached.
func (p *picker) spread() (balancer.PickResult, error) {
	for _, list := range [][]*child{p.active, p.held} {
		ready, wait := p.roundRobin(list)
		if ready != nil {
			return ready.pick(nil)
		}
		if wait {
			return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
		}
	}
	return balancer.PickResult{}, slices.Concat(p.active, p.held)[0].err()
}

// roundRobin returns the next ready child, or else whether to wait for one. Each
// child that is not ready uses up a position of its own, so that the child after
// it does not get two calls.
func (p *picker) roundRobin(list []*child) (ready *child, wait bool) {
	requested := false
	for range list {
		c := list[p.next.Add(1)%uint32(len(list))]
		switch c.load() {
		case connectivity.Ready:
			return c, false
		case connectivity.Idle:
			requested = requested || c.connect()
		}
	}
	for _, c := range list { // none was ready, or concurrent calls took the positions
		switch c.load() {
		case connectivity.Ready:
			return c, false
		case connectivity.Connecting:
			wait = true
		case connectivity.Idle:
			requested = requested || c.connect()
			wait = true
		}
	}
	return nil, wait
}
