package registrytest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store"
)

// A node that is started again alone answers, says that it does not know how old that is,
// refuses whoever asks for more, and goes on without a gap when the others are back.
func TestStaleOnStart(t *testing.T) {
	t.Parallel()
	if sdk.UnknownLag != store.UnknownLag {
		t.Fatalf("%v in the SDK, %v in the nodes", sdk.UnknownLag, store.UnknownLag)
	}
	dirs := make(map[string]string)
	for i := range 3 {
		dirs[fmt.Sprintf("n%d", i+1)] = t.TempDir()
	}
	change := func(cfg *registry.Config) {
		cfg.DataDir, cfg.ServeStaleOnStart, cfg.ElectionTimeout = dirs[cfg.ID], true, 300*time.Millisecond
	}
	c := newAPICluster(t, change)
	before := c.register(t, 0, nil)
	c.applied(t, 0, before.Index)
	for _, n := range c.nodes {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	start := func(i int) {
		old := c.nodes[i]
		c.nodes[i] = startNode(t, old.ID(), func(cfg *registry.Config) {
			change(cfg)
			cfg.Bind, cfg.Addr = old.BindAddr(), old.Addr()
		})
	}
	start(0)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ready := func(query string) (int, string) {
		resp, err := client.Get("http://" + c.nodes[0].Addr() + "/readyz" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	code, text := ready("")
	for deadline := time.Now().Add(30 * time.Second); code != http.StatusOK; code, text = ready("") {
		if <-tick.C; time.Now().After(deadline) {
			t.Fatalf("/readyz: %d, %s", code, text)
		}
	}
	if !strings.HasPrefix(text, "stale") {
		t.Errorf("/readyz: %d, %s", code, text)
	}
	if code, text := ready("?max_lag=2000000h"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz with a limit: %d, %s", code, text)
	}
	health, err := grpc_health_v1.NewHealthClient(c.conns[0]).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	read := func(opts *registrypb.ReadOptions) (*registrypb.Receipt, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := c.apis[0].Members(ctx, &registrypb.MembersRequest{Group: "web", Read: opts})
		return r.GetReceipt(), err
	}
	if r, err := read(nil); err != nil || r.Lag.AsDuration() != sdk.UnknownLag || r.Index < before.Index {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := c.apis[0].Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: []byte("k")}); err != nil || r.Receipt.Lag.AsDuration() != sdk.UnknownLag {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := read(&registrypb.ReadOptions{MinIndex: before.Index}); err != nil {
		t.Errorf("an index that it has: %v", err)
	}
	for what, opts := range map[string]*registrypb.ReadOptions{
		"a limit":      {MaxStaleness: durationpb.New(2 * sdk.UnknownLag)},
		"a later one":  {MinIndex: before.Index + 1000},
		"linearizable": {Linearizable: true},
	} {
		if r, err := read(opts); err == nil {
			t.Errorf("%s: %v", what, r)
		}
	}
	st, err := registrypb.NewClusterClient(c.conns[0]).Status(t.Context(), &registrypb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range st.Nodes {
		if n.Id == "n1" && (n.Ready || len(n.Alarms) != 1 || !strings.Contains(n.Alarms[0], "-serve-stale-on-start")) {
			t.Errorf("the status does not say so: %v", n)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watch, err := c.apis[0].Watch(ctx, &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "web"}})
	if err != nil {
		t.Fatal(err)
	}
	var revision uint64
	next := func() *registrypb.WatchEvent {
		e, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if s := next().GetSnapshot(); len(s.GetMembers()) == 0 {
		t.Fatalf("first %v", s)
	} else {
		revision = s.Revision
	}
	start(1)
	start(2)
	waitReady(t, c.nodes...)
	if code, text := ready("?max_lag=1h"); code != http.StatusOK || strings.HasPrefix(text, "stale") {
		t.Errorf("/readyz: %d, %s", code, text)
	}
	c.register(t, 1, func(r *registrypb.RegisterRequest) { r.Id = "later" })
	for {
		e := next()
		if s := e.GetSnapshot(); s != nil {
			t.Fatalf("the watch began again: %v", s)
		}
		if d := e.GetDelta(); d != nil {
			if d.From != revision || d.Revision <= revision {
				t.Errorf("from %d to %d, it was at %d", d.From, d.Revision, revision)
			}
			return
		}
	}
}
