package grpcring_test

import (
	"cmp"
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/grpcring"
	"github.com/werbenhu/registry/sdk/routing"
)

const virtualNodes = 256

// fakeRegistry is a node with groups that tests write. It sends watchers
// each state as a whole.
type fakeRegistry struct {
	registrypb.UnimplementedRegistryServer
	addr string
	srv  *grpc.Server

	mu      sync.Mutex
	index   uint64
	groups  map[string]*registrypb.GroupSnapshot
	history map[uint64]history // by revision, of all groups
	news    chan struct{}      // closed at the next change
	mute    bool               // nothing is said to be current
	watches int                // opened so far
}

type history struct {
	ring    *ring.Ring
	members []*registrypb.Member // by the ring's index
}

func startRegistry(t testing.TB) *fakeRegistry {
	t.Helper()
	r := &fakeRegistry{
		index: 100, groups: map[string]*registrypb.GroupSnapshot{}, history: map[uint64]history{},
		news: make(chan struct{}), srv: grpc.NewServer(),
	}
	registrypb.RegisterRegistryServer(r.srv, r)
	r.addr, _ = serve(t, r.srv, "127.0.0.1:0")
	return r
}

// serve returns the address, and a function that ends the server.
func serve(t testing.TB, srv *grpc.Server, addr string) (string, func()) {
	t.Helper()
	// A client that redials a port where nobody listens may be given that port as
	// its own, and holds it for a moment.
	var lis net.Listener
	eventually(t, "the port is free", func() bool {
		var err error
		lis, err = net.Listen("tcp", addr)
		return err == nil
	})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(lis)
	}()
	stop := func() {
		srv.Stop()
		<-served
	}
	t.Cleanup(stop)
	return lis.Addr().String(), stop
}

// set writes a group and returns its revision.
func (r *fakeRegistry) set(group string, members ...*registrypb.Member) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b *registrypb.Member) int { return cmp.Compare(a.Id, b.Id) })
	built := ringOf(members)
	r.groups[group] = &registrypb.GroupSnapshot{
		Group: group, Revision: r.index, Index: r.index, Fingerprint: built.Fingerprint(),
		Config: &registrypb.GroupConfig{VirtualNodes: virtualNodes}, Members: members, ClusterId: "cluster-1",
	}
	r.history[r.index] = history{built, members}
	r.changedLocked()
	return r.index
}

func (r *fakeRegistry) changedLocked() {
	close(r.news)
	r.news = make(chan struct{})
}

func (r *fakeRegistry) setMute(mute bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = mute
	r.changedLocked()
}

func (r *fakeRegistry) at(revision uint64) history {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.history[revision]
}

func (r *fakeRegistry) opened() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watches
}

func ringOf(members []*registrypb.Member) *ring.Ring {
	var ms []ring.Member
	for _, m := range members {
		s := map[registrypb.MemberState]ring.State{
			registrypb.MemberState_MEMBER_STATE_HELD: ring.Held, registrypb.MemberState_MEMBER_STATE_DRAINING: ring.Draining,
		}[m.State]
		ms = append(ms, ring.Member{ID: m.Id, Weight: int(m.Weight), State: s})
	}
	built, err := ring.New(ring.Params{VirtualNodes: virtualNodes}, ms)
	if err != nil {
		panic(err)
	}
	return built
}

func (r *fakeRegistry) Watch(req *registrypb.WatchRequest, s registrypb.Registry_WatchServer) error {
	r.mu.Lock()
	r.watches++
	r.mu.Unlock()
	sent, unknown := req.Revision, false
	tick := time.NewTicker(10 * time.Millisecond) // whatever was asked for: tests have no time
	defer tick.Stop()
	for {
		r.mu.Lock()
		g, news, mute := r.groups[req.GetGroup()], r.news, r.mute
		r.mu.Unlock()
		var e *registrypb.WatchEvent
		switch {
		case g == nil && !unknown:
			unknown = true
			e = &registrypb.WatchEvent{Event: &registrypb.WatchEvent_UnknownGroup{UnknownGroup: req.GetGroup()}}
		case g != nil && g.Revision != sent:
			sent = g.Revision
			e = &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: g}}
		case !mute:
			e = &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{}}}
		}
		if e != nil {
			if err := s.Send(e); err != nil {
				return err
			}
		}
		select {
		case <-news:
		case <-tick.C:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (r *fakeRegistry) Members(_ context.Context, req *registrypb.MembersRequest) (*registrypb.MembersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[req.GetGroup()]
	if g == nil {
		st, err := status.New(codes.NotFound, "no such group").WithDetails(&registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_UNKNOWN_GROUP})
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	}
	return &registrypb.MembersResponse{
		Members: g.Members, Config: g.Config,
		Receipt: &registrypb.Receipt{Index: g.Index, Revision: g.Revision, Fingerprint: g.Fingerprint, ClusterId: g.ClusterId},
	}, nil
}

func dialRegistry(t testing.TB, r *fakeRegistry) *sdk.Client {
	t.Helper()
	c, err := sdk.Dial(r.addr, sdk.WithRefreshInterval(0), sdk.WithAttemptTimeout(time.Second), sdk.WithCallTimeout(3*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// service is a member: it says who it is and by which route it was reached.
type service struct {
	id, addr string
	stop     func()
	open     atomic.Int64 // connections
	made     atomic.Int64 // connections, so far
}

var whoDesc = grpc.ServiceDesc{
	ServiceName: "test.Who", HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Am", Handler: func(srv any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
		req := new(wrapperspb.StringValue)
		if err := dec(req); err != nil {
			return nil, err
		}
		handler := func(ctx context.Context, _ any) (any, error) {
			if routes := metadata.ValueFromIncomingContext(ctx, routing.RouteHeader); len(routes) > 0 {
				_ = grpc.SetHeader(ctx, metadata.MD{"route": routes})
			}
			return wrapperspb.String(srv.(*service).id), nil
		}
		if in == nil {
			return handler(ctx, req)
		}
		return in(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/test.Who/Am"}, handler)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Ask", ClientStreams: true, ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
		for {
			if err := s.RecvMsg(new(wrapperspb.StringValue)); err != nil {
				return nil
			}
			if err := s.SendMsg(wrapperspb.String(srv.(*service).addr)); err != nil {
				return err
			}
		}
	}}},
}

func (s *service) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (s *service) HandleRPC(context.Context, stats.RPCStats)                         {}
func (s *service) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *service) HandleConn(_ context.Context, c stats.ConnStats) {
	switch c.(type) {
	case *stats.ConnBegin:
		s.open.Add(1)
		s.made.Add(1)
	case *stats.ConnEnd:
		s.open.Add(-1)
	}
}

func startService(t testing.TB, id, addr string, opts ...grpc.ServerOption) *service {
	t.Helper()
	s := &service{id: id}
	srv := grpc.NewServer(append(opts, grpc.StatsHandler(s))...)
	srv.RegisterService(&whoDesc, s)
	lis, stop := serve(t, srv, cmp.Or(addr, "127.0.0.1:0"))
	s.addr, s.stop = lis, stop
	return s
}

func (s *service) member() *registrypb.Member {
	return &registrypb.Member{Id: s.id, Addr: s.addr, Weight: 1, ModifiedIndex: 1}
}

func (s *service) in(state registrypb.MemberState) *registrypb.Member {
	m := s.member()
	m.State = state
	return m
}

// fleet starts a service for each id.
func fleet(t testing.TB, ids ...string) (map[string]*service, []*registrypb.Member) {
	t.Helper()
	services, members := map[string]*service{}, []*registrypb.Member(nil)
	for _, id := range ids {
		services[id] = startService(t, id, "")
		members = append(members, services[id].member())
	}
	return services, members
}

// dial makes a connection to the group "web", by the builder.
func dial(t testing.TB, b resolver.Builder, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("registry:///web", append([]grpc.DialOption{
		grpc.WithResolvers(b),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond},
			MinConnectTimeout: 5 * time.Second,
		}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask makes a call with a key and returns who answered, and the route it took.
func ask(ctx context.Context, conn *grpc.ClientConn, key string, opts ...grpc.CallOption) (id, route string, err error) {
	if key != "" {
		ctx = grpcring.WithKey(ctx, key)
	}
	var header metadata.MD
	reply := new(wrapperspb.StringValue)
	err = conn.Invoke(ctx, "/test.Who/Am", wrapperspb.String(key), reply, append(opts, grpc.Header(&header))...)
	if routes := header.Get("route"); len(routes) > 0 {
		route = routes[0]
	}
	return reply.GetValue(), route, err
}

// owners returns the ids of a key's owners among members, the owner first.
func owners(members []*registrypb.Member, key string) []string {
	r := ringOf(members)
	var ids []string
	for _, i := range r.MatchN(nil, key, len(members)) {
		ids = append(ids, r.Members()[i].ID)
	}
	return ids
}
