package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/routing"
)

// node is a registry node with one group that never changes.
type node struct {
	registrypb.UnimplementedRegistryServer
	group *registrypb.GroupSnapshot
}

func (n *node) Watch(req *registrypb.WatchRequest, s registrypb.Registry_WatchServer) error {
	if req.Revision != n.group.Revision {
		if err := s.Send(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: n.group}}); err != nil {
			return err
		}
	}
	tick := time.NewTicker(req.ProgressInterval.AsDuration())
	defer tick.Stop()
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case <-tick.C:
		}
		if err := s.Send(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{Lag: durationpb.New(0)}}}); err != nil {
			return err
		}
	}
}

func start(t *testing.T, n *node) (*grpc.Server, string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	registrypb.RegisterRegistryServer(srv, n)
	go func() { _ = srv.Serve(lis) }()
	t.Cleanup(srv.Stop)
	return srv, lis.Addr().String()
}

// services starts n web services and returns the group that they are.
func services(t *testing.T, n int) ([]*httptest.Server, *registrypb.GroupSnapshot) {
	t.Helper()
	g := &registrypb.GroupSnapshot{Group: "g", Revision: 7, Index: 7, Config: &registrypb.GroupConfig{VirtualNodes: 64}}
	var srvs []*httptest.Server
	var ms []ring.Member
	for i := range n {
		id := fmt.Sprintf("web%d", i)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, id, " served ", r.URL.Path, " ", r.Header.Get(routing.RouteHeader) != "")
		}))
		t.Cleanup(srv.Close)
		srvs = append(srvs, srv)
		g.Members = append(g.Members, &registrypb.Member{Id: id, Addr: strings.TrimPrefix(srv.URL, "http://"), Weight: 1})
		ms = append(ms, ring.Member{ID: id, Weight: 1})
	}
	r, err := ring.New(ring.Params{VirtualNodes: 64}, ms)
	if err != nil {
		t.Fatal(err)
	}
	g.Fingerprint = r.Fingerprint()
	return srvs, g
}

// front starts a gateway.
func front(t *testing.T, target, disk string, fallbacks int) (*httptest.Server, *sdk.Client) {
	t.Helper()
	client, err := sdk.Dial(target, sdk.WithAttemptTimeout(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	h, err := gateway(t.Context(), client, options{group: "g", disk: disk, fallbacks: fallbacks, wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv, client
}

func get(t *testing.T, url, header, value string) (int, string) {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/x", nil)
	if header != "" {
		req.Header.Set(header, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func TestGateway(t *testing.T) {
	srvs, group := services(t, 4)
	_, addr := start(t, &node{group: group})
	f, _ := front(t, addr, "", 0)
	_, byHeader := get(t, f.URL, "X-User-ID", "alice")
	code, byCookie := get(t, f.URL, "Cookie", "user=alice")
	if code != 200 || byHeader != byCookie || !strings.HasSuffix(byHeader, "served /x true") {
		t.Errorf("%d %q %q", code, byHeader, byCookie)
	}
	if code, body := get(t, f.URL, "", ""); code != 400 {
		t.Errorf("nobody: %d %q", code, body)
	}
	for i, srv := range srvs { // the user's own service dies
		if strings.HasPrefix(byHeader, fmt.Sprintf("web%d ", i)) {
			srv.Close()
		}
	}
	if code, body := get(t, f.URL, "X-User-ID", "alice"); code != 502 {
		t.Errorf("owner is down: %d %q", code, body)
	}
	g, _ := front(t, addr, "", 1)
	if code, body := get(t, g.URL, "X-User-ID", "alice"); code != 200 || body == byHeader {
		t.Errorf("owner is down, with a fallback: %d %q", code, body)
	}
}

// A service that restarts is held: its users go to the next one at once, without
// a fallback of the gateway's own.
func TestGatewayWithAHeldService(t *testing.T) {
	srvs, group := services(t, 4)
	_, addr := start(t, &node{group: group})
	f, _ := front(t, addr, "", 0)
	_, before := get(t, f.URL, "X-User-ID", "alice")
	for i, m := range group.Members {
		if strings.HasPrefix(before, m.Id+" ") {
			srvs[i].Close()
			m.State = registrypb.MemberState_MEMBER_STATE_HELD
		}
	}
	_, addr = start(t, &node{group: group})
	f, _ = front(t, addr, "", 0)
	if code, body := get(t, f.URL, "X-User-ID", "alice"); code != 200 || body == before {
		t.Errorf("owner is held: %d %q", code, body)
	}
}

// With all registry nodes down, every user stays with the same service: of a
// gateway that goes on, and of one that is restarted.
func TestGatewayWithoutRegistry(t *testing.T) {
	_, group := services(t, 4)
	first, addr1 := start(t, &node{group: group})
	second, addr2 := start(t, &node{group: group})
	disk := filepath.Join(t.TempDir(), "ring")
	f, client := front(t, addr1+","+addr2, disk, 0)
	served := map[string]string{}
	everyone := func(url string) {
		t.Helper()
		for i := range 100 {
			user := fmt.Sprint("user-id-", i)
			code, body := get(t, url, "X-User-ID", user)
			if was := served[user]; code != 200 || was != "" && was != body {
				t.Fatalf("%s: %d %q, was %q", user, code, body, was)
			}
			served[user] = body
		}
	}
	everyone(f.URL)
	first.Stop()
	second.Stop()
	everyone(f.URL)
	_ = client.Close()
	f, _ = front(t, addr1+","+addr2, disk, 0)
	everyone(f.URL)
}

// TestStoppedBeforeTheFirstRing: SIGTERM while the registry is still starting is no failure.
func TestStoppedBeforeTheFirstRing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stop := time.AfterFunc(50*time.Millisecond, cancel)
	defer stop.Stop()
	if err := run(ctx, "127.0.0.1:1", "127.0.0.1:0", options{group: "g", wait: time.Minute}); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), "127.0.0.1:1", "127.0.0.1:0", options{group: "g", wait: 50 * time.Millisecond}); err == nil {
		t.Error("no ring in time is no failure")
	}
}
