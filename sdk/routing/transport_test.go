package routing

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// backends serves members as HTTP servers, guarded by a ring.
func guardedServer(t *testing.T, ring func() *sdk.Ring, id string, opts ...OwnerOption) *httptest.Server {
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
func webMembers(t *testing.T, n int, ring func() *sdk.Ring, opts ...OwnerOption) ([]*httptest.Server, []*registrypb.Member) {
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
	cl := newFakeCluster(t, 2)
	var owner *sdk.Ring
	_, ms := webMembers(t, 5, func() *sdk.Ring { return owner })
	cl.write(ms[:4]...)
	old := cl.newest()
	var router *sdk.Ring
	router, owner = twoRings(t, cl)
	rt := &Transport{Ring: router, Key: KeyFromHeader("X-User-ID"), Base: base(t)}
	cl.nodes[0].pin()
	wait(t, owner, cl.write(ms...))
	key, from, to := movedKey(t, old, cl.newest())

	time.AfterFunc(50*time.Millisecond, cl.nodes[0].unpin) // while the transport waits for its ring
	code, body, resp := do(t, rt, "POST", key, "hello")
	if code != 200 || body != to+":hello" || resp.Header.Get(OwnerHeader) == "" {
		t.Errorf("%d %q, want %s and not %s", code, body, to, from)
	}
	wait(t, router, cl.newest().revision)
	cl.nodes[0].pin()
	now := cl.newest()
	wait(t, owner, cl.write(ms[:4]...))
	key, _, to = movedKey(t, now, cl.newest())
	code, _, resp = do(t, rt, "POST", key, "-") // its body is gone
	m := Misdirected(resp)
	if code != 421 || m == nil || m.Owner.ID != to || m.Route.Revision != cl.newest().revision {
		t.Errorf("%d, %+v", code, m)
	}
}

func TestOwnerRedirects(t *testing.T) {
	cl := newFakeCluster(t, 2)
	var owner *sdk.Ring
	srvs, ms := webMembers(t, 2, func() *sdk.Ring { return owner }, WithRedirect("http"))
	cl.write(ms...)
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
	cl := newFakeCluster(t, 1)
	var ring *sdk.Ring
	srvs, ms := webMembers(t, 3, func() *sdk.Ring { return ring }, WithFallbacks(2))
	// The second owner breaks connections off after it has read a request.
	broken := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	bare := ringOf(ms)
	order := bare.MatchN(nil, "k", 3)
	srvs[order[0]].Close() // the owner refuses connections
	ms[order[1]].Addr = strings.TrimPrefix(broken.URL, "http://")
	last := bare.Member(order[2]).ID
	cl.write(ms...)
	ring = cl.openRing(0)
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
	wait(t, ring, cl.write(ms...))
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
	cl := newFakeCluster(t, 1)
	var ring *sdk.Ring
	_, ms := webMembers(t, 1, func() *sdk.Ring { return ring })
	cl.write(ms...)
	ring = cl.openRing(0)
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

func TestRepeatableBody(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps string // o open, r read, c close by a transport, f release
		want  int32  // times closed
	}{
		{"never sent", "f", 1}, {"closed unread, then released", "ocf", 1}, {"kept for the next attempt", "oc", 0},
		{"answered before it was read", "ofc", 1}, {"read", "orc", 1}, {"read and released", "orcf", 1}, {"second attempt", "ocorc", 1},
	} {
		body := &countingBody{Reader: strings.NewReader("x")}
		b := newRepeatableBody(&http.Request{Body: body})
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

// Requests go to the fallback, without a try at the held owner and without a
// fallback of the transport's own, and a guarded service there accepts them.
func TestTransportGoesToTheFallback(t *testing.T) {
	cl := newFakeCluster(t, 1)
	var guards *sdk.Ring
	srvs, ms := webMembers(t, 3, func() *sdk.Ring { return guards })
	cl.write(ms...)
	guards = cl.openRing(0)
	router := cl.openRing(0)
	m, err := router.Match("alice")
	if err != nil {
		t.Fatal(err)
	}
	owner := slices.IndexFunc(ms, func(o *registrypb.Member) bool { return o.Id == m.ID })
	at := cl.write(holding(ms, m.ID)...)
	wait(t, router, at)
	wait(t, guards, at)
	srvs[owner].Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the held owner was asked") })
	rt := &Transport{Ring: router, Key: KeyFromHeader("X-User-ID"), Base: base(t)}
	m, _ = router.Match("alice")
	code, _, resp := do(t, rt, http.MethodPost, "alice", "body")
	if by := resp.Header.Get(OwnerHeader); code != 200 || !strings.HasPrefix(by, m.Fallback.ID+";") {
		t.Errorf("%d by %q, want %s", code, by, m.Fallback.ID)
	}
	proxy := httptest.NewServer(NewProxy(rt))
	defer proxy.Close()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.URL, nil)
	req.Header.Set("X-User-ID", "alice")
	got, err := http.DefaultClient.Do(req)
	if err != nil || got.StatusCode != 200 {
		t.Fatalf("through a proxy: %v, %v", got, err)
	}
	_ = got.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

// Members are reached directly, also where the environment names a proxy: here one
// that refuses connections.
func TestMembersAreReachedWithoutAProxy(t *testing.T) {
	cl := newFakeCluster(t, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	addr := net.JoinHostPort("0.0.0.0", port) // loopback for a client; no rule of proxies exempts it
	req, _ := http.NewRequest(http.MethodGet, "http://"+addr, nil)
	if p, err := http.ProxyFromEnvironment(req); p == nil {
		t.Fatalf("no proxy for %s, %v: the test shows nothing", addr, err)
	}
	cl.write(&registrypb.Member{Id: "m", Addr: addr, Weight: 1})
	rt := &Transport{Ring: cl.openRing(0), Key: KeyFromHeader("X-User-ID")}
	defer rt.CloseIdleConnections()
	if code, body, _ := do(t, rt, http.MethodGet, "k", ""); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
}

// A proxy with many requests under way keeps its connections to the members: it
// makes as many as there are requests at a time, and no more.
func TestProxyKeepsItsConnections(t *testing.T) {
	const callers, rounds = 32, 8
	cl := newFakeCluster(t, 1)
	var made atomic.Int32
	gate := newRound(callers)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gate.wait(r.Context())
		fmt.Fprint(w, "served")
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			made.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	cl.write(&registrypb.Member{Id: "m", Addr: srv.Listener.Addr().String(), Weight: 1})
	rt := &Transport{Ring: cl.openRing(0), Key: KeyFromHeader("X-User-ID")}
	defer rt.CloseIdleConnections()
	proxy := NewProxy(rt)
	for range rounds {
		var done sync.WaitGroup
		for i := range callers {
			done.Go(func() {
				req := httptest.NewRequestWithContext(testContext(t), http.MethodGet, "/", nil)
				req.Header.Set("X-User-ID", fmt.Sprint(i))
				resp := httptest.NewRecorder()
				proxy.ServeHTTP(resp, req)
				if body, _ := io.ReadAll(resp.Body); resp.Code != http.StatusOK || !strings.Contains(string(body), "served") {
					t.Errorf("%d %s", resp.Code, body)
				}
			})
		}
		done.Wait()
	}
	if n := made.Load(); n != callers {
		t.Errorf("%d connections for %d requests, %d at a time", n, callers*rounds, callers)
	}
}

// round holds callers back until all are there, again and again.
type round struct {
	mu   sync.Mutex // guards the rest
	size int
	here int
	full chan struct{}
}

func newRound(size int) *round { return &round{size: size, full: make(chan struct{})} }

func (r *round) wait(ctx context.Context) {
	r.mu.Lock()
	full := r.full
	if r.here++; r.here == r.size {
		r.here, r.full = 0, make(chan struct{})
		close(full)
	}
	r.mu.Unlock()
	select {
	case <-full:
	case <-ctx.Done():
	}
}
