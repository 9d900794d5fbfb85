package grpcring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/werbenhu/registry/sdk"
)

// Scheme of the targets: registry:///group. The group may be escaped as in a URL's
// path.
const Scheme = "registry"

// retryEvery is the pause after a group's ring could not be opened; before it, the
// client has tried all nodes for its call timeout.
const retryEvery = time.Second

// NewBuilder returns a builder for grpc.WithResolvers that follows groups by the
// client. A process needs one for a client; it may serve many connections.
// With invalid options, calls fail with an error that
// names the option.
func NewBuilder(client *sdk.Client, opts ...Option) resolver.Builder {
	o := options{policy: defaultConfig(), rings: map[string]*sdk.Ring{}}
	for _, opt := range opts {
		opt(&o)
	}
	return &builder{client: client, opts: o, rings: map[string]*sharedRing{}}
}

// Register adds the builder to every connection of the process, without
// grpc.WithResolvers. Like resolver.Register, it must be called once, before any
// connection is made.
func Register(client *sdk.Client, opts ...Option) { resolver.Register(NewBuilder(client, opts...)) }

type builder struct {
	client *sdk.Client
	opts   options

	mu    sync.Mutex // guards rings
	rings map[string]*sharedRing
}

// sharedRing is a group's ring for all connections.
type sharedRing struct {
	lock chan struct{} // holds a token while a caller opens or reads ring
	ring *sdk.Ring
}

func (b *builder) Scheme() string { return Scheme }

// Build starts to follow the group of a target. It does not wait.
func (b *builder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	group := target.Endpoint()
	switch {
	case target.URL.Host != "":
		return nil, fmt.Errorf("grpcring: target %s has an authority: the nodes are those of the client; want %s:///group", target, Scheme)
	case group == "":
		return nil, fmt.Errorf("grpcring: target %s names no group; want %s:///group", target, Scheme)
	}
	js, err := b.opts.fullServiceConfig()
	if err != nil {
		return nil, err
	}
	parsed := cc.ParseServiceConfig(js)
	if parsed.Err != nil {
		return nil, fmt.Errorf("grpcring: service config: %w", parsed.Err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &groupResolver{b: b, group: group, cc: cc, config: parsed, cancel: cancel}
	r.wg.Go(func() { r.run(ctx) })
	return r, nil
}

// ring returns the group's ring; the first caller opens it.
func (b *builder) ring(ctx context.Context, group string) (*sdk.Ring, error) {
	if r := b.opts.rings[group]; r != nil {
		return r, nil
	}
	if b.client == nil {
		return nil, fmt.Errorf("grpcring: no client, and no ring of group %s: %w", group, sdk.ErrClosed)
	}
	b.mu.Lock()
	s := b.rings[group]
	if s == nil {
		s = &sharedRing{lock: make(chan struct{}, 1)}
		b.rings[group] = s
	}
	b.mu.Unlock()
	select {
	case s.lock <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.lock }()
	if s.ring != nil && s.ring.Err() == nil {
		return s.ring, nil
	}
	var opts []sdk.RingOption
	if b.opts.ringOptions != nil {
		opts = b.opts.ringOptions(group)
	}
	r, err := b.client.Ring(ctx, group, opts...)
	if err == nil {
		s.ring = r
	}
	return r, err
}

// groupResolver gives one connection the states of a group's ring.
type groupResolver struct {
	b      *builder
	group  string
	cc     resolver.ClientConn
	config *serviceconfig.ParseResult
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// ResolveNow does nothing: the ring is always followed.
func (r *groupResolver) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the resolver; the ring stays for the next one.
func (r *groupResolver) Close() {
	r.cancel()
	r.wg.Wait()
}

func (r *groupResolver) run(ctx context.Context) {
	retry := time.NewTimer(retryEvery)
	defer retry.Stop()
	for {
		ring, err := r.b.ring(ctx, r.group)
		if err == nil {
			err = r.follow(ctx, ring)
		}
		if ctx.Err() != nil {
			return
		}
		r.cc.ReportError(err)
		if errors.Is(err, sdk.ErrClosed) || errors.Is(err, sdk.ErrInvalidArgument) {
			return // permanent
		}
		retry.Reset(retryEvery)
		select {
		case <-retry.C:
		case <-ctx.Done():
			return
		}
	}
}

// follow passes on the ring's newest state until the ring ends; the last state says
// why.
func (r *groupResolver) follow(ctx context.Context, ring *sdk.Ring) error {
	for {
		ended := ring.Err() // read first, so that the view is the last one
		view, changed := ring.Published()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_ = r.cc.UpdateState(r.state(view)) // the policy's error fails the calls
		if ended != nil {
			return ended
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// update is what the resolver gives the policy with the endpoints.
type update struct {
	view *sdk.View
	// members has, for each endpoint, the index of its member in the view. Behind a
	// proxy, gRPC keeps the order of endpoints but not their attributes.
	members []int
}

type updateKey struct{}

// state returns an endpoint for each member that owns keys.
func (r *groupResolver) state(view *sdk.View) resolver.State {
	all := view.Members()
	u := &update{view: view, members: make([]int, 0, len(all))}
	addrs := make([]resolver.Address, 0, len(all))
	endpoints := make([]resolver.Endpoint, 0, len(all))
	for i := range all {
		if all[i].State == sdk.StateDraining {
			continue
		}
		n := len(addrs)
		addrs = append(addrs, resolver.Address{Addr: all[i].Addr})
		endpoints = append(endpoints, resolver.Endpoint{Addresses: addrs[n : n+1 : n+1]})
		u.members = append(u.members, i)
	}
	return resolver.State{
		Endpoints:     endpoints,
		ServiceConfig: r.config,
		Attributes:    attributes.New(updateKey{}, u),
	}
}
