package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
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
		if r, err := ParseRoute(bad); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%q: %+v, %v", bad, r, err)
		}
	}
	for _, old := range []string{"webservice-group;120;63a9843e583371c6", "webservice-group;120;63a9843e583371c6;1"} {
		if _, err := ParseRoute(old); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "version 1") {
			t.Errorf("%q: %v", old, err)
		}
	}
	if _, err := RouteFromHeader(http.Header{RouteHeader: {"v2;c;g;1;2", "v2;c;g;1;2"}}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("two routes: %v", err)
	}
}

// twoRings returns a router's and an owner's ring, each fed by a node of its own.
func twoRings(t *testing.T, cl *fakeCluster) (router, owner *Ring) {
	t.Helper()
	return openRing(t, cl.client(cl.target(0), fastProgress)), openRing(t, cl.client(cl.target(1), fastProgress))
}

// movedKey finds a key that goes from one member to another between two versions.
func movedKey(t *testing.T, before, after fakeVersion) (key, from, to string) {
	t.Helper()
	a, b := fakeRing(before.members), fakeRing(after.members)
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
	cl := newFakeWatched(t, 2)
	cl.write("g", memberIDs(4)...)
	router, owner := twoRings(t, cl)
	old := cl.newest("g")
	cl.nodes[0].pin("g") // the router hears nothing more
	wait(t, owner, cl.write("g", memberIDs(5)...))
	key, from, to := movedKey(t, old, cl.newest("g"))
	m, err := router.Match(key)
	if err != nil || m.ID != from {
		t.Fatal(m, err)
	}
	route := router.View().Route()
	var wrong *MisdirectedError
	if err := NewOwner(owner, from).Check(t.Context(), &route, key); !errors.As(err, &wrong) ||
		wrong.Owner.ID != to || wrong.Owner.Addr != to+":80" || wrong.Route != owner.View().Route() {
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
		if !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOwnerThatIsBehindWaits(t *testing.T) {
	cl := newFakeWatched(t, 2)
	cl.write("g", memberIDs(4)...)
	router, owner := twoRings(t, cl)
	old := cl.newest("g")
	cl.nodes[1].pin("g") // the owner hears nothing more
	wait(t, router, cl.write("g", memberIDs(5)...))
	key, from, to := movedKey(t, old, cl.newest("g"))
	route := router.View().Route()
	// By its own ring, which is too old, the former owner owns the key.
	if m, err := owner.Match(key); err != nil || m.ID != from {
		t.Fatal(m, err)
	}
	began := time.Now()
	if err := NewOwner(owner, from, WithPatience(50*time.Millisecond)).Check(t.Context(), &route, key); !errors.Is(err, ErrNotReady) {
		t.Errorf("behind the router: %v", err)
	}
	if d := time.Since(began); d < 50*time.Millisecond || d > 5*time.Second {
		t.Errorf("waited %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewOwner(owner, from, WithPatience(time.Hour)).Check(ctx, &route, key); !errors.Is(err, context.Canceled) {
		t.Errorf("caller is gone: %v", err)
	}
	checked := make(chan error)
	go func() { checked <- NewOwner(owner, to, WithPatience(within)).Check(t.Context(), &route, key) }()
	cl.nodes[1].unpin()
	if err := <-checked; err != nil {
		t.Errorf("after it caught up: %v", err)
	}
	route.Fingerprint++
	if err := NewOwner(owner, to).Check(t.Context(), &route, key); !errors.Is(err, ErrNotReady) {
		t.Errorf("another ring at the same revision: %v", err)
	}
}

// A route of another cluster is not compared by its revision: the owner says
// which clusters do not agree.
func TestOwnerOfAnotherCluster(t *testing.T) {
	cl := newFakeWatched(t, 1)
	revision := cl.write("g", memberIDs(4)...)
	ring := openRing(t, cl.client(cl.target(), fastProgress), WithBuildShare(1e-12))
	m, err := ring.Match("k")
	if err != nil {
		t.Fatal(err)
	}
	own := NewOwner(ring, m.ID, WithPatience(20*time.Millisecond))
	for _, at := range []uint64{revision, revision - 1, 1} {
		route := ring.View().Route()
		route.ClusterID, route.Revision = "cluster-2", at
		err := own.Check(t.Context(), &route, "k")
		if !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "cluster-1") || !strings.Contains(err.Error(), "cluster-2") {
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
	cl := newFakeWatched(t, 2)
	cl.write("g", memberIDs(4)...)
	_, ring := twoRings(t, cl)
	owners, err := ring.MatchN(nil, "k", 3)
	if err != nil {
		t.Fatal(err)
	}
	route := ring.View().Route()
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
	cl := newFakeWatched(t, 4)
	cl.write("g", memberIDs(4)...)
	var rings []*Ring // one for each of two routers and two owners' hosts
	for i := range cl.nodes {
		rings = append(rings, openRing(t, cl.client(cl.target(i), fastProgress)))
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
		cl.nodes[p].pin("g")
		pinned[p] = true
		last := cl.write("g", memberIDs(2+rnd.IntN(6))...)
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
			route, own := v.Route(), host.View()
			err = NewOwner(host, m.ID, WithPatience(time.Millisecond)).Check(t.Context(), &route, key)
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

// backends serves members as HTTP servers, guarded by a ring.
func guardedServer(t *testing.T, ring func() *Ring, id string, opts ...OwnerOption) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := NewOwner(ring(), id, opts...).Handler(KeyFromHeader("X-User-ID"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s:%s", id, body)
		}))
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv
}

// webMembers makes servers and the members that they are.
func webMembers(t *testing.T, n int, ring func() *Ring, opts ...OwnerOption) ([]*httptest.Server, []*registrypb.Member) {
	var srvs []*httptest.Server
	var ms []*registrypb.Member
	for i := range n {
		id := fmt.Sprintf("m-%d", i)
		srvs = append(srvs, guardedServer(t, ring, id, opts...))
		ms = append(ms, &registrypb.Member{Id: id, Addr: strings.TrimPrefix(srvs[i].URL, "http://"), Weight: 1})
	}
	return srvs, ms
}

func do(t *testing.T, rt http.RoundTripper, method, user, body string) (int, string, *http.Response) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), method, "http://anything/path", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "-" {
		req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader("once")), nil, -1
	}
	req.Header.Set("X-User-ID", user)
	resp, err := (&http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	got, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(got), resp
}

func base(t *testing.T) *http.Transport {
	b := &http.Transport{}
	t.Cleanup(b.CloseIdleConnections)
	return b
}

// An HTTP router that is out of date is sent to the right owner, with the
// request as it was.
func TestTransportFollowsTheOwnersWord(t *testing.T) {
	cl := newFakeWatched(t, 2)
	var owner *Ring
	_, ms := webMembers(t, 5, func() *Ring { return owner })
	cl.write("g", ms[:4]...)
	old := cl.newest("g")
	var router *Ring
	router, owner = twoRings(t, cl)
	rt := &Transport{Ring: router, Key: KeyFromHeader("X-User-ID"), Base: base(t)}
	cl.nodes[0].pin("g")
	wait(t, owner, cl.write("g", ms...))
	key, from, to := movedKey(t, old, cl.newest("g"))

	time.AfterFunc(50*time.Millisecond, cl.nodes[0].unpin) // while the transport waits for its ring
	code, body, resp := do(t, rt, "POST", key, "hello")
	if code != 200 || body != to+":hello" || resp.Header.Get(OwnerHeader) == "" {
		t.Errorf("%d %q, want %s and not %s", code, body, to, from)
	}
	wait(t, router, cl.newest("g").revision)
	cl.nodes[0].pin("g")
	now := cl.newest("g")
	wait(t, owner, cl.write("g", ms[:4]...))
	key, _, to = movedKey(t, now, cl.newest("g"))
	code, _, resp = do(t, rt, "POST", key, "-") // its body is gone
	m := Misdirected(resp)
	if code != 421 || m == nil || m.Owner.ID != to || m.Route.Revision != cl.newest("g").revision {
		t.Errorf("%d, %+v", code, m)
	}
}

func TestOwnerRedirects(t *testing.T) {
	cl := newFakeWatched(t, 2)
	var owner *Ring
	srvs, ms := webMembers(t, 2, func() *Ring { return owner }, WithRedirect("http"))
	cl.write("g", ms...)
	_, owner = twoRings(t, cl)
	m, err := owner.Match("k")
	if err != nil {
		t.Fatal(err)
	}
	wrong := srvs[0]
	if m.ID == "m-0" {
		wrong = srvs[1]
	}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", wrong.URL+"/a/b?c=d", nil)
	req.Header.Set("X-User-ID", "k")
	resp, err := (&http.Client{Transport: base(t), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("Location"); resp.StatusCode != 307 || got != "http://"+m.Addr+"/a/b?c=d" {
		t.Errorf("%d to %q", resp.StatusCode, got)
	}
}

func TestTransportFallsBackWhereThatIsSafe(t *testing.T) {
	cl := newFakeWatched(t, 1)
	var ring *Ring
	srvs, ms := webMembers(t, 3, func() *Ring { return ring }, WithFallbacks(2))
	// The second owner breaks connections off after it has read a request.
	broken := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	bare := fakeRing(ms)
	order := bare.MatchN(nil, "k", 3)
	srvs[order[0]].Close() // the owner refuses connections
	ms[order[1]].Addr = strings.TrimPrefix(broken.URL, "http://")
	last := bare.Member(order[2]).ID
	cl.write("g", ms...)
	ring = openRing(t, cl.client(cl.target(), fastProgress))
	rt := &Transport{Ring: ring, Key: KeyFromHeader("X-User-ID"), Base: base(t), Fallbacks: 2}
	for _, tt := range []struct {
		method, body, want string
	}{
		{"GET", "", last + ":"},
		{"PUT", "hello", last + ":hello"},
		{"POST", "hello", "EOF"}, // the second may have done it
		{"PUT", "-", "EOF"},      // the body is gone
	} {
		if code, got, _ := do(t, rt, tt.method, "k", tt.body); !strings.Contains(got, tt.want) {
			t.Errorf("%s %q: %d %q, want %q", tt.method, tt.body, code, got, tt.want)
		}
	}
	// Nothing was sent to the owner: even a POST whose body cannot be had again goes on.
	ms[order[1]] = &registrypb.Member{Id: ms[order[1]].Id, Addr: strings.TrimPrefix(srvs[order[1]].URL, "http://"), Weight: 1}
	wait(t, ring, cl.write("g", ms...))
	for _, body := range []string{"once", "-"} {
		if code, got, _ := do(t, rt, "POST", "k", body); code != 200 || got != bare.Member(order[1]).ID+":once" {
			t.Errorf("POST %q: %d %q", body, code, got)
		}
	}
	if code, got, _ := do(t, &Transport{Ring: ring, Key: rt.Key, Base: rt.Base}, "GET", "k", ""); code != 0 || !strings.Contains(got, "refused") {
		t.Errorf("without fallbacks: %d %q", code, got)
	}
}

// A body is closed, once the attempts are through with it.
func TestTransportClosesTheBody(t *testing.T) {
	cl := newFakeWatched(t, 1)
	var ring *Ring
	_, ms := webMembers(t, 1, func() *Ring { return ring })
	cl.write("g", ms...)
	ring = openRing(t, cl.client(cl.target(), fastProgress))
	rt := &Transport{Ring: ring, Key: KeyFromHeader("X-User-ID"), Base: base(t)}
	for name, user := range map[string]string{"sent": "k", "without a key": ""} {
		body := &countingBody{Reader: strings.NewReader("x")}
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://a/", body)
		req.Header.Set("X-User-ID", user)
		if resp, err := rt.RoundTrip(req); err == nil {
			_ = resp.Body.Close()
		} else if user != "" {
			t.Error(err)
		}
		eventually(t, name+": closed", func() bool { return body.closed.Load() > 0 })
	}
}

func TestHeldBody(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps string // o open, r read, c close by a transport, f release
		want  int32  // times closed
	}{
		{"never sent", "f", 1}, {"closed unread, then released", "ocf", 1}, {"kept for the next attempt", "oc", 0},
		{"answered before it was read", "ofc", 1}, {"read", "orc", 1}, {"read and released", "orcf", 1}, {"second attempt", "ocorc", 1},
	} {
		body := &countingBody{Reader: strings.NewReader("x")}
		b := holdBody(&http.Request{Body: body})
		var open io.ReadCloser
		for _, step := range tt.steps {
			switch step {
			case 'o':
				open, _ = b.open()
			case 'r':
				_, _ = open.Read(make([]byte, 1))
			case 'c':
				_ = open.Close()
			case 'f':
				b.release()
			}
		}
		if n := body.closed.Load(); n != tt.want {
			t.Errorf("%s: closed %d times, want %d", tt.name, n, tt.want)
		}
	}
}

type countingBody struct {
	io.Reader
	closed atomic.Int32
}

func (b *countingBody) Close() error { b.closed.Add(1); return nil }

func TestKeyFuncs(t *testing.T) {
	r := httptest.NewRequest("GET", "/users/alice/x?u=bob", nil)
	r.Header.Set("X-User-ID", "carol")
	r.AddCookie(&http.Cookie{Name: "user", Value: "dave"})
	for name, tt := range map[string]struct {
		f    KeyFunc
		want string
	}{
		"header": {KeyFromHeader("x-user-id"), "carol"}, "cookie": {KeyFromCookie("user"), "dave"}, "no cookie": {KeyFromCookie("x"), ""},
		"path": {KeyFromPath(1), "alice"}, "no segment": {KeyFromPath(9), ""}, "negative": {KeyFromPath(-1), ""},
		"query": {KeyFromQuery("u"), "bob"}, "first": {FirstKey(KeyFromQuery("x"), KeyFromPath(0)), "users"}, "none": {FirstKey(), ""},
	} {
		if got := tt.f(r); got != tt.want {
			t.Errorf("%s: %q", name, got)
		}
	}
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
	cl := newFakeWatched(t, 2)
	cl.write("g", memberIDs(4)...)
	router, owner := twoRings(t, cl)
	old := cl.newest("g")
	cl.nodes[0].pin("g")
	wait(t, owner, cl.write("g", memberIDs(5)...))
	key, from, to := movedKey(t, old, cl.newest("g"))
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
	ctx := router.View().Route().Outgoing(metadata.AppendToOutgoingContext(testContext(t), "x-user-id", key))
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
		if m := MisdirectedCall(err); status.Code(err) != codes.FailedPrecondition || m == nil || m.Owner.ID != to || m.Owner.Addr != to+":80" || m.Route != owner.View().Route() {
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
