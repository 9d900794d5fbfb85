package routing

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

func TestRouteTravels(t *testing.T) {
	for _, r := range []Route{
		{ClusterID: "41f2a6c09be7d358", Group: "webservice-group", Revision: 120, Fingerprint: 0x63a9843e583371c6},
		{Group: "web", Revision: 120, Fingerprint: 1},
		{ClusterID: "a;b %", Group: "ünï; code,\"x\" %", Revision: 1<<64 - 1, Fingerprint: 1, Fallback: 3},
	} {
		h := http.Header{}
		r.SetHeader(h)
		if got, err := RouteFromHeader(h); err != nil || *got != r {
			t.Errorf("%q: %+v, %v", h.Get(RouteHeader), got, err)
		}
		ctx := r.Outgoing(metadata.AppendToOutgoingContext(r.Outgoing(t.Context()), "other", "kept"))
		md, _ := metadata.FromOutgoingContext(ctx)
		got, err := RouteFromIncoming(metadata.NewIncomingContext(t.Context(), md))
		if err != nil || *got != r || len(md.Get("other")) != 1 {
			t.Errorf("%v: %+v, %v", md, got, err)
		}
	}
	if got, err := RouteFromHeader(http.Header{}); got != nil || err != nil {
		t.Error(got, err)
	}
	for _, bad := range []string{
		"", "v2", "v2;c;g", "v2;c;g;1", "v2;c;;1;2", "v2;c;g;x;2", "v2;c;g;1;xyz", "v2;c;g;-1;2", "v2;c;g;1;2;x", "v2;c;g;1;2;-1", "v2;c;g;1;2;3;4",
		"v2;%zz;g;1;2", "v2;c;%zz;1;2", "v2;c;g;1;2;99999", "v2;c;" + strings.Repeat("g", 2000) + ";1;2", "v3;c;g;1;2", "c;g;1;2;3",
	} {
		if r, err := ParseRoute(bad); !errors.Is(err, sdk.ErrInvalidArgument) {
			t.Errorf("%q: %+v, %v", bad, r, err)
		}
	}
	for _, old := range []string{"webservice-group;120;63a9843e583371c6", "webservice-group;120;63a9843e583371c6;1"} {
		if _, err := ParseRoute(old); !errors.Is(err, sdk.ErrInvalidArgument) || !strings.Contains(err.Error(), "version 1") {
			t.Errorf("%q: %v", old, err)
		}
	}
	if _, err := RouteFromHeader(http.Header{RouteHeader: {"v2;c;g;1;2", "v2;c;g;1;2"}}); !errors.Is(err, sdk.ErrInvalidArgument) {
		t.Errorf("two routes: %v", err)
	}
}

// twoRings returns a router's and an owner's ring, each fed by a node of its own.
func twoRings(t *testing.T, cl *fakeCluster) (router, owner *sdk.Ring) {
	t.Helper()
	return cl.openRing(0), cl.openRing(1)
}

// movedKey finds a key that goes from one member to another between two versions.
func movedKey(t *testing.T, before, after fakeVersion) (key, from, to string) {
	t.Helper()
	a, b := ringOf(before.members), ringOf(after.members)
	for i := range 100000 {
		key := fmt.Sprint("key-", i)
		if from, to := a.Member(a.Match(key)).ID, b.Member(b.Match(key)).ID; from != to {
			return key, from, to
		}
	}
	t.Fatal("no key moved")
	return "", "", ""
}

func TestOwnerRefusesAnOutOfDateRouter(t *testing.T) {
	cl := newFakeCluster(t, 2)
	cl.write(memberIDs(4)...)
	router, owner := twoRings(t, cl)
	old := cl.newest()
	cl.nodes[0].pin() // the router hears nothing more
	wait(t, owner, cl.write(memberIDs(5)...))
	key, from, to := movedKey(t, old, cl.newest())
	m, err := router.Match(key)
	if err != nil || m.ID != from {
		t.Fatal(m, err)
	}
	route := OfView(router.View())
	var wrong *MisdirectedError
	if err := NewOwner(owner, from).Check(t.Context(), &route, key); !errors.As(err, &wrong) ||
		wrong.Owner.ID != to || wrong.Owner.Addr != to+":80" || wrong.Route != OfView(owner.View()) {
		t.Errorf("the former owner: %v", err)
	}
	if err := NewOwner(owner, to).Check(t.Context(), &route, key); err != nil {
		t.Errorf("the owner: %v", err)
	}
	if err := NewOwner(owner, to).Check(t.Context(), nil, key); err != nil {
		t.Errorf("without a route: %v", err)
	}
	for name, err := range map[string]error{
		"route required": NewOwner(owner, to, WithRouteRequired()).Check(t.Context(), nil, key),
		"other group":    NewOwner(owner, to).Check(t.Context(), &Route{Group: "h"}, key),
	} {
		if !errors.Is(err, sdk.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOwnerThatIsBehindWaits(t *testing.T) {
	cl := newFakeCluster(t, 2)
	cl.write(memberIDs(4)...)
	router, owner := twoRings(t, cl)
	old := cl.newest()
	cl.nodes[1].pin() // the owner hears nothing more
	wait(t, router, cl.write(memberIDs(5)...))
	key, from, to := movedKey(t, old, cl.newest())
	route := OfView(router.View())
	// By its own ring, which is too old, the former owner owns the key.
	if m, err := owner.Match(key); err != nil || m.ID != from {
		t.Fatal(m, err)
	}
	began := time.Now()
	if err := NewOwner(owner, from, WithWaitTimeout(50*time.Millisecond)).Check(t.Context(), &route, key); !errors.Is(err, sdk.ErrNotReady) {
		t.Errorf("behind the router: %v", err)
	}
	if d := time.Since(began); d < 50*time.Millisecond || d > 5*time.Second {
		t.Errorf("waited %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewOwner(owner, from, WithWaitTimeout(time.Hour)).Check(ctx, &route, key); !errors.Is(err, context.Canceled) {
		t.Errorf("caller is gone: %v", err)
	}
	checked := make(chan error)
	go func() { checked <- NewOwner(owner, to, WithWaitTimeout(within)).Check(t.Context(), &route, key) }()
	cl.nodes[1].unpin()
	if err := <-checked; err != nil {
		t.Errorf("after it caught up: %v", err)
	}
	route.Fingerprint++
	if err := NewOwner(owner, to).Check(t.Context(), &route, key); !errors.Is(err, sdk.ErrNotReady) {
		t.Errorf("another ring at the same revision: %v", err)
	}
}

// A route of another cluster is not compared by its revision: the owner says
// which clusters do not agree.
func TestOwnerOfAnotherCluster(t *testing.T) {
	cl := newFakeCluster(t, 1)
	revision := cl.write(memberIDs(4)...)
	ring := cl.openRing(0, sdk.WithBuildShare(1e-12))
	m, err := ring.Match("k")
	if err != nil {
		t.Fatal(err)
	}
	own := NewOwner(ring, m.ID, WithWaitTimeout(20*time.Millisecond))
	for _, at := range []uint64{revision, revision - 1, 1} {
		route := OfView(ring.View())
		route.ClusterID, route.Revision = "cluster-2", at
		err := own.Check(t.Context(), &route, "k")
		if !errors.Is(err, sdk.ErrNotReady) || !strings.Contains(err.Error(), "cluster-1") || !strings.Contains(err.Error(), "cluster-2") {
			t.Errorf("a route of another cluster at %d: %v", at, err)
		}
		if route.ClusterID = ""; at == revision {
			if err := own.Check(t.Context(), &route, "k"); err != nil {
				t.Errorf("a route of an unknown cluster: %v", err)
			}
		}
	}
}

func TestOwnerAndFallbacks(t *testing.T) {
	cl := newFakeCluster(t, 2)
	cl.write(memberIDs(4)...)
	_, ring := twoRings(t, cl)
	owners, err := ring.MatchN(nil, "k", 3)
	if err != nil {
		t.Fatal(err)
	}
	route := OfView(ring.View())
	for _, tt := range []struct {
		place, fallback, allowed int
		ok                       bool
	}{
		{0, 0, 0, true}, {0, 1, 0, true}, {1, 0, 0, false}, {1, 1, 0, false}, {1, 1, 1, true}, {1, 0, 1, false},
		{2, 1, 2, false}, {2, 2, 2, true}, {2, 2, 1, false},
	} {
		route.Fallback = tt.fallback
		err := NewOwner(ring, owners[tt.place].ID, WithFallbacks(tt.allowed)).Check(t.Context(), &route, "k")
		if (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// While routers and owners hear of changes at different times, no two members
// accept a key at one revision; without routes and guards, they do.
func TestOneOwnerAtARevision(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	cl := newFakeCluster(t, 4)
	cl.write(memberIDs(4)...)
	var rings []*sdk.Ring // one for each of two routers and two owners' hosts
	for i := range cl.nodes {
		rings = append(rings, cl.openRing(i))
	}
	type at struct {
		key      string
		revision uint64
	}
	guarded, bare := map[at]map[string]bool{}, map[string]map[string]bool{}
	note := func(m map[string]bool, id string) map[string]bool {
		if m == nil {
			m = map[string]bool{}
		}
		m[id] = true
		return m
	}
	refused := 0
	pinned := map[int]bool{} // nodes that see no change any more
	for step := range 60 {
		p := rnd.IntN(4)
		cl.nodes[p].pin()
		pinned[p] = true
		last := cl.write(memberIDs(2 + rnd.IntN(6))...)
		if step%5 == 0 {
			for _, n := range cl.nodes {
				n.unpin()
			}
			clear(pinned)
			clear(bare)
		}
		for i, r := range rings { // so that the rings do differ
			if !pinned[i] {
				wait(t, r, last)
			}
		}
		for range 50 {
			key := fmt.Sprint("key-", rnd.IntN(40))
			v := rings[rnd.IntN(2)].View()
			m, err := v.Match(key)
			if err != nil {
				t.Fatal(err)
			}
			host := rings[2+rnd.IntN(2)]
			bare[key] = note(bare[key], m.ID)
			route, own := OfView(v), host.View()
			err = NewOwner(host, m.ID, WithWaitTimeout(time.Millisecond)).Check(t.Context(), &route, key)
			if err != nil {
				refused++
				continue
			}
			if host.View() == own { // the ring that decided
				k := at{key, own.Revision()}
				guarded[k] = note(guarded[k], m.ID)
			}
		}
	}
	twice := 0
	for _, ids := range bare {
		if len(ids) > 1 {
			twice++
		}
	}
	for k, ids := range guarded {
		if len(ids) > 1 {
			t.Errorf("%+v was accepted by %v", k, ids)
		}
	}
	if len(guarded) == 0 || refused == 0 {
		t.Errorf("%d accepted, %d refused: nothing was tried", len(guarded), refused)
	}
	t.Logf("%d keys accepted once at a revision, %d refused; without guards %d keys had two owners", len(guarded), refused, twice)
}

// echo is a gRPC service whose calls an Owner guards.
type echo struct {
	registrypb.UnimplementedRegistryServer
}

func (echo) Match(context.Context, *registrypb.MatchRequest) (*registrypb.MatchResponse, error) {
	return &registrypb.MatchResponse{}, nil
}

func (echo) HeartbeatStream(s registrypb.Registry_HeartbeatStreamServer) error {
	return s.Send(&registrypb.HeartbeatResponse{})
}

func TestOwnerGuardsGRPC(t *testing.T) {
	cl := newFakeCluster(t, 2)
	cl.write(memberIDs(4)...)
	router, owner := twoRings(t, cl)
	old := cl.newest()
	cl.nodes[0].pin()
	wait(t, owner, cl.write(memberIDs(5)...))
	key, from, to := movedKey(t, old, cl.newest())
	serve := func(id string) registrypb.RegistryClient {
		o := NewOwner(owner, id)
		srv := grpc.NewServer(
			grpc.UnaryInterceptor(o.UnaryInterceptor(func(_ context.Context, req any) string { return string(req.(*registrypb.MatchRequest).GetKey()) })),
			grpc.StreamInterceptor(o.StreamInterceptor(KeyFromMetadata("X-User-ID"))),
		)
		registrypb.RegisterRegistryServer(srv, echo{})
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = srv.Serve(lis) })
		conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(); srv.Stop(); wg.Wait() })
		return registrypb.NewRegistryClient(conn)
	}
	right, wrong := serve(to), serve(from)
	ctx := OfView(router.View()).Outgoing(metadata.AppendToOutgoingContext(testContext(t), "x-user-id", key))
	unary := func(ctx context.Context, api registrypb.RegistryClient, key string) error {
		_, err := api.Match(ctx, &registrypb.MatchRequest{Key: []byte(key)})
		return err
	}
	stream := func(ctx context.Context, api registrypb.RegistryClient) error {
		s, err := api.HeartbeatStream(ctx)
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	if err := errors.Join(unary(ctx, right, key), stream(ctx, right)); err != nil {
		t.Errorf("the owner: %v", err)
	}
	for name, err := range map[string]error{"unary": unary(ctx, wrong, key), "stream": stream(ctx, wrong)} {
		if m := MisdirectedCall(err); status.Code(err) != codes.FailedPrecondition || m == nil || m.Owner.ID != to || m.Owner.Addr != to+":80" || m.Route != OfView(owner.View()) {
			t.Errorf("%s: %v, %+v", name, err, m)
		}
	}
	for name, err := range map[string]error{"no key": unary(ctx, right, ""), "no key in a stream": stream(t.Context(), right)} {
		if status.Code(err) != codes.InvalidArgument || MisdirectedCall(err) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_ = owner.Close()
	if err := unary(ctx, right, key); status.Code(err) != codes.Unavailable {
		t.Errorf("without a ring: %v", err)
	}
}

// While its owner is held a key has one member that accepts it, and that is its
// fallback: what the held one accepts, it accepts by an older ring.
func TestOwnerOfAHeldKey(t *testing.T) {
	cl := newFakeCluster(t, 1)
	key, before := "alice", ringOf(memberIDs(4))
	owners := before.MatchN(nil, key, 2)
	owner, fallback := before.Member(owners[0]).ID, before.Member(owners[1]).ID
	ms := holding(memberIDs(4), owner)
	cl.write(ms...)
	r := cl.openRing(0)
	route := OfView(r.View())
	for _, m := range ms {
		id := m.Id
		at, err := NewOwner(r, id).Accept(t.Context(), &route, key)
		var wrong *MisdirectedError
		switch {
		case id == fallback && (err != nil || at != route):
			t.Errorf("the fallback: %+v, %v", at, err)
		case id != fallback && (!errors.As(err, &wrong) || wrong.Owner.ID != fallback):
			t.Errorf("%s: %v", id, err)
		}
	}
	// The last one that is there answers for itself.
	var all []string
	for _, m := range ms {
		all = append(all, m.Id)
	}
	wait(t, r, cl.write(holding(ms, all...)...))
	if err := NewOwner(r, owner).Check(t.Context(), nil, key); err != nil {
		t.Errorf("all are held: %v", err)
	}
}
