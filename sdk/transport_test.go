package sdk

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// beyondLoopback is the port of a loopback address under an address that is this
// machine for a client, and that no rule of proxies exempts.
func beyondLoopback(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	addr = net.JoinHostPort("0.0.0.0", port)
	req, _ := http.NewRequest(http.MethodGet, "http://"+addr, nil)
	if p, err := http.ProxyFromEnvironment(req); p == nil {
		t.Fatalf("no proxy for %s, %v: the test shows nothing", addr, err)
	}
	return addr
}

// Nodes and members are reached directly, also where the environment names a
// proxy: here one that refuses connections.
func TestNodesAndMembersAreReachedWithoutAProxy(t *testing.T) {
	cl := newFakeWatched(t, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	cl.write("g", &registrypb.Member{Id: "m", Addr: beyondLoopback(t, srv.Listener.Addr().String()), Weight: 1})
	node := beyondLoopback(t, cl.nodes[0].addr)
	for name, opt := range map[string]Option{"default dialer": fastProgress, "nil dialer": WithDialer(nil)} {
		c := cl.client(node, fastProgress, opt)
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		rt := &Transport{Ring: openRing(t, c), Key: KeyFromHeader("X-User-ID")}
		if code, body, _ := do(t, rt, http.MethodGet, "k", ""); code != http.StatusOK {
			t.Errorf("%s, by the default transport: %d %s", name, code, body)
		}
		rt.CloseIdleConnections()
	}
}

// A proxy with many requests under way keeps its connections to the members: it
// makes as many as there are requests at a time, and no more.
func TestProxyKeepsItsConnections(t *testing.T) {
	const callers, rounds = 32, 8
	cl := newFakeWatched(t, 1)
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
	cl.write("g", &registrypb.Member{Id: "m", Addr: srv.Listener.Addr().String(), Weight: 1})
	rt := &Transport{Ring: openRing(t, cl.client(cl.target(), fastProgress)), Key: KeyFromHeader("X-User-ID")}
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
