package registrytest_test

import (
	"context"
	"errors"
	"net"
	"path"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// TestNodeOfAnotherClusterAtAnOldAddress: a node of cluster b listens for clients
// where one of cluster a did. No client of a ever gets there, and when a is down
// they say so.
func TestNodeOfAnotherClusterAtAnOldAddress(t *testing.T) {
	t.Parallel()
	of := func(cluster string, more func(*registry.Config)) func(*registry.Config) {
		return func(c *registry.Config) { c.Cluster = cluster; more(c) }
	}
	n1 := startNode(t, "n1", of("a", func(*registry.Config) {}))
	n2 := startNode(t, "n2", of("a", func(c *registry.Config) { c.Registries = []string{n1.BindAddr()} }))
	n3 := startNode(t, "n3", of("a", func(c *registry.Config) { c.Registries = []string{n1.BindAddr()} }))
	waitReady(t, n1, n2, n3)
	old := n2.Addr()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	c := clientAt(t, ctx, old, n1.Addr()+","+n3.Addr())
	service := sdk.Service{Group: "web", ID: "w0", Addr: "10.0.0.1:80", TTL: time.Second}
	if _, err := c.Register(ctx, service); err != nil {
		t.Fatal(err)
	}
	ring, err := c.Ring(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	watch, err := c.Watch(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := n2.Close(); err != nil {
		t.Fatal(err)
	}
	calls := prometheus.NewRegistry()
	b := startNode(t, "n2", of("b", func(c *registry.Config) { c.Addr, c.Registerer = old, calls }))
	waitReady(t, b)

	clients := []*sdk.Client{c, clientAt(t, ctx, old, n1.Addr()+","+n3.Addr(), sdk.WithCluster("a"))}
	for i := range 12 {
		s := sdk.Service{Group: "web", ID: "w-" + string(rune('a'+i)), Addr: "10.0.1.1:80", TTL: time.Hour}
		if _, err := clients[i%2].Register(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		if _, err := clients[i%2].Match(ctx, "web", "user"); err != nil {
			t.Fatal(err)
		}
	}
	last := untilMembers(t, ctx, watch, 13)
	if err := ring.Wait(ctx, last.Revision); err != nil {
		t.Fatal(err)
	}
	if groups, err := clientOf(t, old, sdk.WithCluster("b"), sdk.WithRefreshInterval(0)).Groups(ctx, sdk.Linearizable()); err != nil || len(groups) != 0 {
		t.Errorf("cluster b has %v, %v", groups, err)
	}
	if refused := sum(t, calls, "registry_requests_total", "FailedPrecondition"); refused == 0 {
		t.Error("no client ever asked the node of cluster b")
	}
	before := ring.View()

	if err := errors.Join(n1.Close(), n3.Close()); err != nil {
		t.Fatal(err)
	}
	for what, call := range map[string]func(context.Context) error{
		"match": func(ctx context.Context) error { _, err := c.Match(ctx, "web", "user"); return err },
		"update": func(ctx context.Context) error {
			_, err := c.SetGroup(ctx, sdk.SetGroup{Group: "web", VirtualNodes: 64})
			return err
		},
		"status": func(ctx context.Context) error { _, err := c.Status(ctx, ""); return err },
	} {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		if err := call(ctx); !errors.Is(err, sdk.ErrWrongCluster) && !errors.Is(err, sdk.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
	}
	if v := ring.View(); v.ClusterID() != before.ClusterID() || v.Revision() < before.Revision() || ring.Stats().Rebuilds != 0 {
		t.Errorf("the ring moved over: %q at %d, %+v", v.ClusterID(), v.Revision(), ring.Stats())
	}
	if n := sum(t, calls, "registry_requests_total", "OK", "Match", "Register", "Members", "HeartbeatStream", "Watch", "Status"); n != 0 {
		t.Errorf("cluster b answered %v calls of clients of a", n)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sum(t, calls, "registry_open_streams", "") != 0 { // one is open until it is refused
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("cluster b has streams of clients of a")
		}
	}
}

// TestCallsNameTheCluster: what a client without the SDK sees, on both ports.
func TestCallsNameTheCluster(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n1", func(c *registry.Config) { c.Cluster = "prod ü" })
	waitReady(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status, err := clientOf(t, n.Addr()).Status(ctx, "")
	if err != nil || status.Cluster != "prod ü" || len(status.ClusterID) != 32 {
		t.Fatalf("%+v, %v", status, err)
	}
	encoded := "prod%20%C3%BC/" + status.ClusterID
	for _, addr := range []string{n.Addr(), n.BindAddr()} {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, tt := range []struct {
			named  string
			reason registrypb.ErrorDetail_Reason
		}{
			{"", registrypb.ErrorDetail_UNKNOWN_GROUP},
			{encoded, registrypb.ErrorDetail_UNKNOWN_GROUP},
			{"prod%20%C3%BC", registrypb.ErrorDetail_UNKNOWN_GROUP},
			{"/" + status.ClusterID, registrypb.ErrorDetail_UNKNOWN_GROUP},
			{"prod", registrypb.ErrorDetail_WRONG_CLUSTER},
			{"prod%20%C3%BC/0", registrypb.ErrorDetail_WRONG_CLUSTER},
			{"/0", registrypb.ErrorDetail_WRONG_CLUSTER},
			{"a/b/c", registrypb.ErrorDetail_INVALID_ARGUMENT},
		} {
			ctx := ctx
			if tt.named != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, registrypb.ClusterHeader, tt.named)
			}
			var header metadata.MD
			_, err := registrypb.NewRegistryClient(conn).Members(ctx, &registrypb.MembersRequest{Group: "web"}, grpc.Header(&header))
			if got := reason(err); got != tt.reason {
				t.Errorf("%s: members of %q: %v: %v", addr, tt.named, got, err)
			}
			if got := header.Get(registrypb.ClusterHeader); len(got) != 1 || got[0] != encoded {
				t.Errorf("%s: the header names %q", addr, got)
			}
			stream, err := registrypb.NewRegistryClient(conn).Watch(ctx, &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "web"}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			if got := reason(err); got != tt.reason && (err != nil || tt.reason != registrypb.ErrorDetail_UNKNOWN_GROUP) {
				t.Errorf("%s: watch of %q: %v: %v", addr, tt.named, got, err)
			}
			if header, err := stream.Header(); err != nil || len(header.Get(registrypb.ClusterHeader)) != 1 {
				t.Errorf("%s: the header of a watch is %v, %v", addr, header, err)
			}
		}
	}
}

// clientAt is a client whose calls go to home, until it fails.
func clientAt(t *testing.T, ctx context.Context, home, others string, opts ...sdk.Option) *sdk.Client {
	t.Helper()
	for ctx.Err() == nil {
		var first atomic.Pointer[string]
		c := clientOf(t, home+","+others, append(opts, sdk.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			first.CompareAndSwap(nil, &addr)
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}))...)
		if _, err := c.Groups(ctx); err != nil {
			t.Fatal(err)
		}
		if *first.Load() == home {
			return c
		}
	}
	t.Fatal("no client begins with", home)
	return nil
}

func clientOf(t *testing.T, target string, opts ...sdk.Option) *sdk.Client {
	t.Helper()
	c, err := sdk.Dial(target, append(opts, sdk.WithCloseTimeout(time.Second))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // its cluster may be gone
	return c
}

// untilMembers reads events until the group has so many members.
func untilMembers(t *testing.T, ctx context.Context, w *sdk.Watch[sdk.GroupEvent], want int) sdk.GroupEvent {
	t.Helper()
	ids := map[string]bool{}
	for {
		e, err := w.Next(ctx)
		if err != nil || e.Rebuilt {
			t.Fatalf("%d of %d members; %+v, %v", len(ids), want, e, err)
		}
		for _, m := range e.Put {
			ids[m.ID] = true
		}
		if len(ids) == want {
			return e
		}
	}
}

// sum adds up a metric of the client port, of those methods or of all, with that
// code if it has one.
func sum(t *testing.T, from prometheus.Gatherer, metric, code string, methods ...string) (n float64) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == metric && labels["port"] == "client" && labels["code"] == code &&
				(len(methods) == 0 || slices.Contains(methods, path.Base(labels["method"]))) {
				n += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return n
}
