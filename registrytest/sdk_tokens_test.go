package registrytest_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/grpcring"
)

// A service needs no more than the right to register, and a router no more than the
// right to discover, each on the group's prefix.
func TestServiceAndRouterWithTheirTokens(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3), registrytest.WithTokens())
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	service := c.Dial(sdk.WithToken(c.Token(sdk.Grant{Rights: sdk.Register, Prefix: "web-"})))
	router := c.Dial(sdk.WithToken(c.Token(sdk.Grant{Rights: sdk.Discover, Prefix: "web-"})))

	addr := serveHealth(t)
	reg, err := service.Register(ctx, sdk.Service{Group: "web-1", ID: "a", Addr: addr, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	r, err := router.Ring(ctx, "web-1")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := r.Match("user-1"); err != nil || m.Addr != addr {
		t.Errorf("match: %v, %v", m, err)
	}
	conn, err := grpc.NewClient("registry:///web-1", grpc.WithResolvers(grpcring.NewBuilder(router)),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(grpcring.WithKey(ctx, "user-1"), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("call by the ring: %v", err)
	}
	if err := reg.Drain(ctx); err != nil {
		t.Error(err)
	}
	for what, try := range map[string]func() error{
		"the service reads": func() error { _, err := service.Match(ctx, "web-1", "k"); return err },
		"the service, elsewhere": func() error {
			_, err := service.Register(ctx, sdk.Service{Group: "db", ID: "a", Addr: addr})
			return err
		},
		"the router registers": func() error {
			_, err := router.Register(ctx, sdk.Service{Group: "web-1", ID: "b", Addr: addr})
			return err
		},
		"the router, elsewhere":       func() error { _, err := router.Ring(ctx, "db"); return err },
		"the router lists all groups": func() error { _, err := router.Groups(ctx); return err },
		"the router makes a token":    func() error { _, err := router.CreateToken(ctx, sdk.NewToken{Name: "x", Grants: all}); return err },
	} {
		if err := try(); !errors.Is(err, sdk.ErrPermissionDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := reg.Close(); err != nil || !reg.Removed() {
		t.Errorf("close: %v, removed %v", err, reg.Removed())
	}
}

var all = []sdk.Grant{{Rights: sdk.Discover | sdk.Register | sdk.Operate}, {Rights: sdk.Admin}}

// serveHealth serves the gRPC health service, as a member.
func serveHealth(t *testing.T) (addr string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(lis)
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-served
	})
	return lis.Addr().String()
}

// The calls of an administrator, from the first token on.
func TestTokensByTheClient(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3))
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	if _, err := c.Client().Self(ctx); !errors.Is(err, sdk.ErrTokensOff) {
		t.Errorf("self: %v", err)
	}
	if _, err := c.Client().CreateToken(ctx, sdk.NewToken{Name: "x", Grants: all}); !errors.Is(err, sdk.ErrTokensOff) {
		t.Errorf("create: %v", err)
	}
	first, err := c.Client().InitTokens(ctx, "first")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().InitTokens(ctx, "second"); !errors.Is(err, sdk.ErrConflict) {
		t.Errorf("init again: %v", err)
	}
	admin := c.Dial(sdk.WithToken(first))
	expires := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	grants := []sdk.Grant{{Rights: sdk.Discover | sdk.Register, Prefix: "web-"}, {Rights: sdk.Operate, Prefix: "db"}}
	text, err := admin.CreateToken(ctx, sdk.NewToken{Name: "web", Grants: grants, ExpiresAt: expires})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateToken(ctx, sdk.NewToken{Name: "web", Grants: grants}); !errors.Is(err, sdk.ErrConflict) {
		t.Errorf("the same name: %v", err)
	}
	if _, err := admin.CreateToken(ctx, sdk.NewToken{Name: "none", Grants: []sdk.Grant{{Rights: 1 << 5}}}); !errors.Is(err, sdk.ErrInvalidArgument) {
		t.Errorf("no such right: %v", err)
	}
	web := c.Dial(sdk.WithToken(text))
	self, err := web.Self(ctx)
	if err != nil || self.Name != "web" || !self.ExpiresAt.Equal(expires) || len(self.Grants) != 2 || self.Grants[0] != grants[0] || self.Grants[1] != grants[1] {
		t.Errorf("self: %+v, %v", self, err)
	}
	rotated, err := admin.RotateToken(ctx, "web", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Dial(sdk.WithToken(rotated)).Self(ctx); err != nil || again.ID != self.ID || again.PreviousUntil.IsZero() {
		t.Errorf("self: %+v, %v", again, err)
	}
	if _, err := web.Self(ctx); err != nil {
		t.Errorf("in the overlap: %v", err)
	}
	if _, err := admin.RotateToken(ctx, "none", 0); !errors.Is(err, sdk.ErrUnknownToken) {
		t.Errorf("rotate none: %v", err)
	}
	if list, err := admin.Tokens(ctx); err != nil || len(list) != 2 || list[0].Name != "first" || list[1].ID != self.ID {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := admin.RevokeToken(ctx, "web"); err != nil {
		t.Error(err)
	}
	if err := admin.RevokeToken(ctx, "web"); !errors.Is(err, sdk.ErrUnknownToken) {
		t.Errorf("revoke again: %v", err)
	}
	if err := admin.RevokeToken(ctx, "first"); !errors.Is(err, sdk.ErrLastAdmin) {
		t.Errorf("revoke the last: %v", err)
	}
	if _, err := c.Client().Tokens(ctx); !errors.Is(err, sdk.ErrUnauthenticated) {
		t.Errorf("without a token: %v", err)
	}
}

// A rotation ends a client's streams; they go on with the file's new token, and no
// lease is lost.
func TestRotationOfATokenInAFile(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3), registrytest.WithTokens())
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	admin := c.Client()
	text, err := admin.CreateToken(ctx, sdk.NewToken{Name: "web", Grants: []sdk.Grant{{Rights: sdk.Discover | sdk.Register, Prefix: "web"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	client := c.Dial(sdk.WithTokenFile(file))
	events := make(chan sdk.Event, 64)
	if _, err := client.Register(ctx, sdk.Service{Group: "web", ID: "a", Addr: "10.0.0.1:80", TTL: 3 * time.Second, OnEvent: func(e sdk.Event) { events <- e }}); err != nil {
		t.Fatal(err)
	}
	watch, err := client.Watch(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	if _, err := watch.Next(ctx); err != nil {
		t.Fatal(err)
	}
	if text, err = admin.RotateToken(ctx, "web", 0); err != nil {
		t.Fatal(err)
	}
	write(text)
	if _, err := admin.SetGroup(ctx, sdk.SetGroup{Group: "web", VirtualNodes: 64}); err != nil {
		t.Fatal(err)
	}
	for {
		e, err := watch.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e.VirtualNodes == 64 {
			break
		}
	}
	beyond := time.NewTimer(4 * time.Second) // more than a TTL
	defer beyond.Stop()
	for {
		select {
		case e := <-events:
			if e.Kind == sdk.EventLost || e.Kind == sdk.EventEnded {
				t.Errorf("event %v, %v", e.Kind, e.Err)
			}
			continue
		case <-beyond.C:
		}
		break
	}
	if ms, err := client.Members(ctx, "web", sdk.Linearizable()); err != nil || len(ms) != 1 {
		t.Errorf("members: %v, %v", ms, err)
	}
}

// The leases of one client that belong to another token are told, and become those of
// the client's token when they have ended; the client's others are renewed all the time.
func TestRegistrationsOfTwoTokens(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithTokens())
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(c.Token(sdk.Grant{Rights: sdk.Register}))
	client := c.Dial(sdk.WithTokenFile(file))
	register := func(id string) chan sdk.Event {
		events := make(chan sdk.Event, 64)
		if _, err := client.Register(ctx, sdk.Service{Group: "web", ID: id, Addr: "10.0.0.1:80", TTL: 3 * time.Second, OnEvent: func(e sdk.Event) { events <- e }}); err != nil {
			t.Fatal(err)
		}
		return events
	}
	want := func(events chan sdk.Event, kind sdk.EventKind, cause error) {
		t.Helper()
		select {
		case e := <-events:
			if e.Kind != kind || !errors.Is(e.Err, cause) {
				t.Errorf("event %v, %v; want %v, %v", e.Kind, e.Err, kind, cause)
			}
		case <-ctx.Done():
			t.Fatalf("no event %v", kind)
		}
	}
	before := register("before")
	want(before, sdk.EventRegistered, nil)
	token := c.Token(sdk.Grant{Rights: sdk.Register})
	write(token)
	// The file is read within a second, and then the stream of the old token is ended.
	if err := c.Client().RevokeToken(ctx, "token-1"); err != nil {
		t.Fatal(err)
	}
	after := register("after")
	want(after, sdk.EventRegistered, nil)
	for e := range before {
		if errors.Is(e.Err, sdk.ErrNotOwner) && e.Kind == sdk.EventUnreachable {
			break
		}
		if e.Kind == sdk.EventLost || e.Kind == sdk.EventReregistered {
			t.Fatalf("event %v, %v", e.Kind, e.Err)
		}
	}
	want(before, sdk.EventReregistered, nil)
	select {
	case e := <-after:
		if e.Kind != sdk.EventUnreachable && e.Kind != sdk.EventRenewed {
			t.Errorf("event %v, %v of a registration that is renewed", e.Kind, e.Err)
		}
	default:
	}
}

// A token of one prefix lists its groups and watches them, also after its stream broke
// while a group was deleted.
func TestWatchPrefixWithATokenOfThePrefix(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithTokens())
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	for _, group := range []string{"web-1", "web-2", "db"} {
		if _, err := c.Client().SetGroup(ctx, sdk.SetGroup{Group: group, VirtualNodes: 128}); err != nil {
			t.Fatal(err)
		}
	}
	conns := make(chan net.Conn, 100)
	router := c.Dial(sdk.WithToken(c.Token(sdk.Grant{Rights: sdk.Discover, Prefix: "web-"})),
		sdk.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err == nil {
				conns <- conn
			}
			return conn, err
		}))
	groups, err := router.GroupsWithPrefix(ctx, "web-")
	if err != nil || len(groups) != 2 {
		t.Errorf("groups: %v, %v", groups, err)
	}
	if _, err := router.Groups(ctx); !errors.Is(err, sdk.ErrPermissionDenied) {
		t.Errorf("all groups: %v", err)
	}
	w, err := router.WatchPrefix(ctx, "web-")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for seen := 0; seen < 2; seen++ {
		if ev, err := w.Next(ctx); err != nil || ev.Err != nil {
			t.Fatal(ev, err)
		}
	}
	for len(conns) > 0 {
		_ = (<-conns).Close()
	}
	if _, err := c.Client().DeleteGroup(ctx, "web-2", sdk.GroupDeletion{}); err != nil {
		t.Fatal(err)
	}
	for {
		ev, err := w.Next(ctx)
		if err != nil || errors.Is(ev.Err, sdk.ErrPermissionDenied) {
			t.Fatal(ev, err)
		}
		if ev.Group == "web-2" && ev.Unknown {
			return
		}
	}
}
