package grpcring

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/werbenhu/registry/sdk"
)

// Name of the policy in a service config.
const Name = "registry_ring"

func init() { balancer.Register(policy{}) } // gRPC has no other way to add a policy

type policy struct{}

func (policy) Name() string { return Name }

func (policy) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	b := &ringBalancer{cc: cc, children: map[string]*child{}, next: new(atomic.Uint32)}
	b.next.Store(rand.Uint32())
	return b
}

func (policy) ParseConfig(js json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	return parseConfig(js)
}

// ringBalancer has one child, a subchannel, for each member with keys.
//
// gRPC calls it and its children's listeners one at a time, so it needs no lock.
// Pickers run concurrently and read only the children's states, which are atomic.
// So a child's change costs the same however many members there are, and only a
// change of the ring makes a new picker.
type ringBalancer struct {
	cc       balancer.ClientConn
	children map[string]*child // by the member's id
	counts   [connectivity.Shutdown + 1]int
	next     *atomic.Uint32 // round robin position of calls without a key
	picker   balancer.Picker
	failed   bool // the picker only returns an error
	resolved bool
}

// UpdateClientConnState makes one picker of a state of the ring.
func (b *ringBalancer) UpdateClientConnState(s balancer.ClientConnState) error {
	u, _ := s.ResolverState.Attributes.Value(updateKey{}).(*update)
	if u == nil || len(u.members) != len(s.ResolverState.Endpoints) {
		b.fail(errors.New("grpcring: the policy " + Name + " works with targets " + Scheme + ":///group only"))
		return balancer.ErrBadResolverState
	}
	cfg, _ := s.BalancerConfig.(*config)
	if cfg == nil {
		c := defaultConfig()
		cfg = &c
	}
	b.resolved = true
	old := b.children
	b.children = make(map[string]*child, len(u.members))
	members := u.view.Members()
	slots := make([]slot, len(members))
	for i, e := range s.ResolverState.Endpoints {
		m := &members[u.members[i]]
		c := old[m.ID]
		if c == nil || !c.serves(m, e.Addresses) {
			c = b.newChild(m, e.Addresses)
		} else {
			delete(old, m.ID)
		}
		c.modified = m.ModifiedIndex
		b.children[m.ID] = c
		slots[u.members[i]] = slot{child: c, held: m.State == sdk.StateHeld}
	}
	if _, err := u.view.Match(""); err != nil { // too old, unknown, empty, closed
		b.fail(err)
	} else {
		b.picker, b.failed = newPicker(cfg, u.view, slots, b.next), false
		b.publish()
	}
	for _, c := range old { // after no new call can be sent there
		b.drop(c)
	}
	return nil
}

// fail lets calls fail, or wait, until there is another picker.
func (b *ringBalancer) fail(err error) {
	b.picker, b.failed = base.NewErrPicker(err), true
	b.publish()
}

// publish gives gRPC the picker; waiting calls then pick again.
func (b *ringBalancer) publish() {
	if b.picker != nil {
		b.cc.UpdateState(balancer.State{ConnectivityState: b.state(), Picker: b.picker})
	}
}

func (b *ringBalancer) state() connectivity.State {
	if b.failed {
		return connectivity.TransientFailure
	}
	for _, s := range []connectivity.State{connectivity.Ready, connectivity.Connecting, connectivity.Idle} {
		if b.counts[s] > 0 {
			return s
		}
	}
	return connectivity.TransientFailure
}

// ResolverError fails calls with the resolver's error until there is a first state.
func (b *ringBalancer) ResolverError(err error) {
	if !b.resolved {
		b.fail(err)
	}
}

// UpdateSubConnState is not called: children have state listeners.
func (b *ringBalancer) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle connects one member, for callers that wait for a connection without
// making a call. Calls connect the others.
func (b *ringBalancer) ExitIdle() {
	if b.counts[connectivity.Ready]+b.counts[connectivity.Connecting] > 0 {
		return
	}
	if p, ok := b.picker.(*picker); ok {
		_, _ = p.spread()
	}
}

// Close drops the children.
func (b *ringBalancer) Close() {
	b.picker = nil
	for _, c := range b.children {
		b.drop(c)
	}
}

// child is the connection to a member at one address.
type child struct {
	sc    balancer.SubConn
	addrs []resolver.Address // several proxies give several; the first is used
	owner string             // id and address, for errors

	// state is gRPC's, with one difference: a child whose connection failed stays in
	// TransientFailure until an attempt succeeds, so that calls do not wait for each
	// attempt. failure holds the error and is set first.
	state     atomic.Uint32
	failure   atomic.Pointer[error]
	requested atomic.Bool // a connection, since the child became idle

	calls   atomic.Int64 // in progress; the bit dropped is set once no call may begin
	endCall func(balancer.DoneInfo)

	// Used by the balancer alone.
	modified uint64 // index of the member's last change
	removed  bool
}

// dropped is the bit of child.calls that lets no new call begin.
const dropped = 1 << 62

func (b *ringBalancer) newChild(m *sdk.Member, addrs []resolver.Address) *child {
	c := &child{addrs: addrs, owner: m.ID + " at " + m.Addr}
	c.endCall = func(balancer.DoneInfo) { c.end() }
	c.state.Store(uint32(connectivity.Idle))
	b.counts[connectivity.Idle]++
	//lint:ignore SA1019 the notice asks for one address a subchannel, as here
	sc, err := b.cc.NewSubConn(addrs[:min(1, len(addrs))], balancer.NewSubConnOptions{
		HealthCheckEnabled: true, // if the service config asks for it, too
		StateListener:      func(s balancer.SubConnState) { b.childChanged(c, s) },
	})
	if err != nil {
		b.setState(c, connectivity.TransientFailure, err)
		return c
	}
	c.sc = sc
	return c
}

// serves tells whether the child may be kept for the member. It may not if the
// address changed, or if connections failed and the member changed since: a new
// child skips the backoff of the old one.
func (c *child) serves(m *sdk.Member, addrs []resolver.Address) bool {
	if c.sc == nil || c.load() == connectivity.TransientFailure && c.modified != m.ModifiedIndex {
		return false
	}
	return slices.EqualFunc(c.addrs, addrs, resolver.Address.Equal)
}

func (c *child) load() connectivity.State { return connectivity.State(c.state.Load()) }

// connect requests a connection, once; it reports false if one was requested.
func (c *child) connect() bool {
	if !c.requested.CompareAndSwap(false, true) {
		return false
	}
	c.sc.Connect() // an idle child has one
	return true
}

// err is the error of an unreachable child. It is not a status, so that calls with
// wait-for-ready wait.
func (c *child) err() error {
	var why error
	if p := c.failure.Load(); p != nil {
		why = *p
	}
	return fmt.Errorf("grpcring: %s cannot be reached: %v", c.owner, why)
}

// childChanged is a child's state listener.
func (b *ringBalancer) childChanged(c *child, s balancer.SubConnState) {
	if c.removed {
		return
	}
	failed := c.load() == connectivity.TransientFailure
	switch s.ConnectivityState {
	case connectivity.Idle:
		if failed { // the backoff is over
			c.sc.Connect()
			return
		}
		c.requested.Store(false)
	case connectivity.Connecting:
		if failed {
			return
		}
	case connectivity.Shutdown:
		return
	}
	b.setState(c, s.ConnectivityState, s.ConnectionError)
	b.publish()
}

func (b *ringBalancer) setState(c *child, s connectivity.State, err error) {
	b.counts[c.load()]--
	b.counts[s]++
	if s == connectivity.TransientFailure {
		c.failure.Store(&err)
	}
	c.state.Store(uint32(s))
}

// drop removes a child. The last call on it shuts it down.
//
// An earlier shutdown would block calls: gRPC v1.85.0 closes the connection
// gracefully, and a call that was picked but has no stream yet waits until all
// others on it have ended (http2Client.NewStream waits for a GOAWAY, which only a
// server sends).
func (b *ringBalancer) drop(c *child) {
	c.removed = true
	b.counts[c.load()]--
	if c.calls.Or(dropped) == 0 {
		c.shutdown()
	}
}

// begin counts a call; it reports false if the child was dropped: a newer picker exists.
func (c *child) begin() bool {
	if c.calls.Add(1) >= dropped {
		c.end()
		return false
	}
	return true
}

// end uncounts a call. Repeated shutdowns have no effect.
func (c *child) end() {
	if c.calls.Add(-1) == dropped {
		c.shutdown()
	}
}

func (c *child) shutdown() {
	if c.sc != nil {
		c.sc.Shutdown()
	}
}
