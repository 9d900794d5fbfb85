package grpcring_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"sync"
	"testing"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/werbenhu/registry/sdk/grpcring"
)

// channel is what a policy sees of gRPC, with connections that come about at
// once. It lets the test ask gRPC's own policies for picks without calls.
type channel struct {
	balancer.ClientConn // nil: what is not below is not to be called
	queue               chan func()
	connect             func(*conn) // a connection is asked for; nil: it comes about
	shutdown            func(*conn)

	mu     sync.Mutex
	picker balancer.Picker
	news   chan struct{}
}

type conn struct {
	balancer.SubConn // nil
	ch               *channel
	addr             string
	listener         func(balancer.SubConnState)
}

func newChannel(t testing.TB) *channel {
	c := &channel{queue: make(chan func(), 10000), news: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for f := range c.queue {
			if f == nil {
				return
			}
			f()
		}
	})
	t.Cleanup(func() {
		c.queue <- nil
		wg.Wait()
	})
	return c
}

// do runs f as gRPC calls policies: one call at a time.
func (c *channel) do(f func()) {
	done := make(chan struct{})
	c.queue <- func() {
		defer close(done)
		f()
	}
	<-done
}

func (c *channel) NewSubConn(addrs []resolver.Address, o balancer.NewSubConnOptions) (balancer.SubConn, error) {
	return &conn{ch: c, addr: addrs[0].Addr, listener: o.StateListener}, nil
}

func (c *channel) UpdateState(s balancer.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.picker = s.Picker
	close(c.news)
	c.news = make(chan struct{})
}

func (c *channel) ResolveNow(resolver.ResolveNowOptions) {}

func (c *conn) Connect() {
	if c.ch.connect != nil {
		c.ch.connect(c)
		return
	}
	c.is(connectivity.Connecting, connectivity.Ready)
}

// is reports states, one after the other.
func (c *conn) is(states ...connectivity.State) {
	for _, s := range states {
		c.ch.queue <- func() {
			c.listener(balancer.SubConnState{ConnectivityState: s, ConnectionError: errors.New("scripted")})
		}
	}
}

func (c *conn) Shutdown() {
	if c.ch.shutdown != nil {
		c.ch.shutdown(c)
	}
}

func (c *conn) RegisterHealthListener(f func(balancer.SubConnState)) {
	c.ch.queue <- func() { f(balancer.SubConnState{ConnectivityState: connectivity.Ready}) }
}

// try returns the address that a call would go to, if it need not wait.
func (c *channel) try(ctx context.Context) (addr string, news chan struct{}, err error) {
	c.mu.Lock()
	p, news := c.picker, c.news
	c.mu.Unlock()
	r, err := p.Pick(balancer.PickInfo{Ctx: ctx})
	if err != nil {
		return "", news, err
	}
	if r.Done != nil {
		r.Done(balancer.DoneInfo{})
	}
	return r.SubConn.(*conn).addr, news, nil
}

// pick is try for a call that waits.
func (c *channel) pick(ctx context.Context) (string, error) {
	for {
		addr, news, err := c.try(ctx)
		if err != balancer.ErrNoSubConnAvailable {
			return addr, err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// policyOn builds a registered policy on a channel, in the state.
func policyOn(t testing.TB, name, config string, s resolver.State) *channel {
	t.Helper()
	c := newChannel(t)
	c.start(t, name, config)(s)
	return c
}

// start builds a registered policy, and returns what gives it states.
func (c *channel) start(t testing.TB, name, config string) func(resolver.State) {
	t.Helper()
	b := balancer.Get(name)
	cfg, err := b.(balancer.ConfigParser).ParseConfig(json.RawMessage(config))
	if err != nil {
		t.Fatal(err)
	}
	var policy balancer.Balancer
	c.do(func() { policy = b.Build(c, balancer.BuildOptions{}) })
	t.Cleanup(func() { c.do(policy.Close) })
	return func(s resolver.State) {
		t.Helper()
		c.do(func() {
			err = policy.UpdateClientConnState(balancer.ClientConnState{ResolverState: s, BalancerConfig: cfg})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// states captures what a resolver says.
type states struct {
	resolver.ClientConn
	got chan resolver.State
}

func (s *states) UpdateState(st resolver.State) error { s.got <- st; return nil }
func (s *states) ReportError(error)                   {}
func (s *states) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{}
}

// resolve returns what this package's resolver says of the group "web".
func resolve(t testing.TB, reg *fakeRegistry) resolver.State {
	t.Helper()
	cc := &states{got: make(chan resolver.State, 100)}
	r, err := grpcring.NewBuilder(dialRegistry(t, reg)).Build(
		resolver.Target{URL: url.URL{Scheme: grpcring.Scheme, Path: "/web"}}, cc, resolver.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return <-cc.got
}
