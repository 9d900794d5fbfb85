package grpcring_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/grpcring"
	"github.com/werbenhu/registry/sdk/routing"
)

// mustAsk wants an answer from a certain member.
func mustAsk(t *testing.T, conn *grpc.ClientConn, key, want string) (route string) {
	t.Helper()
	id, route, err := ask(testContext(t), conn, key)
	if err != nil || id != want {
		t.Fatalf("%s: answered by %q, %v; want %s", key, id, err, want)
	}
	return route
}

func mustFail(t *testing.T, conn *grpc.ClientConn, key string, want codes.Code) {
	t.Helper()
	if id, _, err := ask(testContext(t), conn, key); status.Code(err) != want {
		t.Fatalf("%q: %q, %v; want %v", key, id, err, want)
	}
}

// waiting starts a call that waits for ready.
func waiting(t *testing.T, conn *grpc.ClientConn, key string) func() (string, error) {
	t.Helper()
	type result struct {
		id  string
		err error
	}
	ctx, done := testContext(t), make(chan result, 1)
	go func() {
		id, _, err := ask(ctx, conn, key, grpc.WaitForReady(true))
		done <- result{id, err}
	}()
	return func() (string, error) {
		r := <-done
		return r.id, r.err
	}
}

func TestCallsGoToTheOwner(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c", "d")
	reg.set("web", members...)
	conn := dial(t, grpcring.NewBuilder(dialRegistry(t, reg)))

	first := owners(members, "user-0")[0]
	mustAsk(t, conn, "user-0", first)
	for id, s := range services { // a member that no call needs has no connection
		if got := s.made.Load(); (got > 0) != (id == first) {
			t.Errorf("after one call to %s: %d connections to %s", first, got, id)
		}
	}
	for i := range 200 {
		key := fmt.Sprint("user-", i)
		mustAsk(t, conn, key, owners(members, key)[0])
	}
	if got := conn.GetState(); got != connectivity.Ready {
		t.Errorf("state %v", got)
	}
}

func TestKeyHeader(t *testing.T) {
	reg := startRegistry(t)
	_, members := fleet(t, "a", "b", "c", "d")
	reg.set("web", members...)
	conn := dial(t, grpcring.NewBuilder(dialRegistry(t, reg), grpcring.WithKeyHeader("X-User-ID")))
	for i := range 50 {
		key := fmt.Sprint("user-", i)
		want := owners(members, key)[0]
		ctx := metadata.AppendToOutgoingContext(testContext(t), "x-user-id", key)
		if id, _, err := ask(ctx, conn, ""); err != nil || id != want {
			t.Fatalf("%s: %s %v, want %s", key, id, err, want)
		}
		if id, _, err := ask(ctx, conn, "other"); err != nil || id != owners(members, "other")[0] {
			t.Fatalf("the context's key does not go before the header's: %s %v", id, err)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "x-user-id", "2nd")
		if id, _, err := ask(ctx, conn, ""); err != nil || id != owners(members, key+",2nd")[0] {
			t.Fatalf("%s,2nd: %s %v", key, id, err)
		}
	}
	mustFail(t, conn, "", codes.Internal)
}

func TestCallsWithoutKey(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c", "held", "draining")
	members[3].State = registrypb.MemberState_MEMBER_STATE_HELD
	members[4].State = registrypb.MemberState_MEMBER_STATE_DRAINING
	reg.set("web", members...)
	client := dialRegistry(t, reg)

	mustFail(t, dial(t, grpcring.NewBuilder(client)), "", codes.Internal)

	conn := dial(t, grpcring.NewBuilder(client, grpcring.WithKeyless(grpcring.Spread)))
	count := map[string]int{}
	call := func() {
		id, route, err := ask(testContext(t), conn, "")
		if err != nil || route != "" {
			t.Fatalf("%q by %q: %v", id, route, err)
		}
		count[id]++
	}
	eventually(t, "every member is used", func() bool { call(); return len(count) == 3 })
	eventually(t, "all are ready", func() bool {
		clear(count)
		for range 30 {
			call()
		}
		return count["a"] == 10 && count["b"] == 10 && count["c"] == 10
	})
	if n := services["held"].made.Load() + services["draining"].made.Load(); n != 0 {
		t.Errorf("%d connections to held and draining members", n)
	}
	for _, id := range []string{"a", "b", "c"} {
		services[id].stop()
	}
	eventually(t, "the held member, when no other is there", func() bool {
		id, _, _ := ask(testContext(t), conn, "")
		return id == "held"
	})
	services["held"].stop()
	eventually(t, "nobody is there", func() bool {
		_, _, err := ask(testContext(t), conn, "")
		return status.Code(err) == codes.Unavailable
	})
}

func TestFallback(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c", "d")
	reg.set("web", members...)
	client := dialRegistry(t, reg)
	conn := dial(t, grpcring.NewBuilder(client))
	alone := dial(t, grpcring.NewBuilder(client, grpcring.WithFallbacks(0)))
	order := owners(members, "alice")

	if route := mustAsk(t, conn, "alice", order[0]); strings.Count(route, ";") != 4 {
		t.Errorf("the owner's route is %q", route)
	}
	services[order[0]].stop()
	eventually(t, "the next owner answers", func() bool { // a call on its way when the owner goes may fail
		id, _, _ := ask(testContext(t), conn, "alice")
		return id == order[1]
	})
	for range 20 { // none waits for further attempts, or fails by them
		if route := mustAsk(t, conn, "alice", order[1]); !strings.HasSuffix(route, ";1") {
			t.Errorf("the fallback's route is %q", route)
		}
	}
	mustFail(t, alone, "alice", codes.Unavailable)
	services[order[1]].stop()
	eventually(t, "no candidate is left", func() bool {
		_, _, err := ask(testContext(t), conn, "alice")
		return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), order[0]+" at ")
	})
	wait := waiting(t, conn, "alice")
	startService(t, order[0], services[order[0]].addr)
	if id, err := wait(); err != nil || id != order[0] {
		t.Errorf("a call that waits: %s %v", id, err)
	}
	mustAsk(t, conn, "alice", order[0])
	if id, err := waiting(t, alone, "alice")(); err != nil || id != order[0] {
		t.Errorf("a call that waits, without fallbacks: %s %v", id, err)
	}
}

func TestHeldMember(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c")
	reg.set("web", members...)
	client := dialRegistry(t, reg)
	conn := dial(t, grpcring.NewBuilder(client))
	alone := dial(t, grpcring.NewBuilder(client, grpcring.WithFallbacks(0)))
	order := owners(members, "alice")
	mustAsk(t, conn, "alice", order[0])

	held := services[order[0]].in(registrypb.MemberState_MEMBER_STATE_HELD)
	reg.set("web", held, services[order[1]].member(), services[order[2]].member())
	eventually(t, "the fallback of a held member", func() bool {
		id, route, err := ask(testContext(t), conn, "alice")
		if err != nil {
			t.Fatal(err)
		}
		return id == order[1] && strings.Count(route, ";") == 4 // it passed over nobody
	})
	mustAsk(t, alone, "alice", order[1])
	services[order[1]].stop()
	eventually(t, "the next after the fallback", func() bool {
		id, route, _ := ask(testContext(t), conn, "alice")
		return id == order[2] && strings.HasSuffix(route, ";1")
	})
	reg.set("web", held, services[order[1]].in(registrypb.MemberState_MEMBER_STATE_HELD))
	eventually(t, "a held member, rather than none", func() bool {
		id, _, _ := ask(testContext(t), conn, "alice")
		return id == order[0]
	})
	reg.set("web", held, services[order[1]].member(), services[order[2]].member())
	startService(t, order[1], services[order[1]].addr)
	eventually(t, "the fallback is back", func() bool {
		id, _, _ := ask(testContext(t), conn, "alice")
		return id == order[1]
	})
	reg.set("web", members...)
	eventually(t, "the hold is over", func() bool {
		id, _, _ := ask(testContext(t), conn, "alice")
		return id == order[0]
	})
}

// A member that is back has registered again: it is not left waiting for the
// end of a backoff, which may be minutes.
func TestNewRegistrationEndsBackoff(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c")
	reg.set("web", members...)
	conn := dial(t, grpcring.NewBuilder(dialRegistry(t, reg)), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{BaseDelay: time.Hour, Multiplier: 1, MaxDelay: time.Hour}, MinConnectTimeout: 5 * time.Second,
	}))
	order := owners(members, "alice")
	services[order[0]].stop()
	mustAsk(t, conn, "alice", order[1])
	startService(t, order[0], services[order[0]].addr)
	mustAsk(t, conn, "alice", order[1])
	for _, m := range members {
		if m.Id == order[0] {
			m.ModifiedIndex++
		}
	}
	reg.set("web", members...)
	eventually(t, "the owner again", func() bool {
		id, _, err := ask(testContext(t), conn, "alice")
		if err != nil {
			t.Fatal(err)
		}
		return id == order[0]
	})
}

// A member that moves to another address keeps its keys; what is in progress at
// the old one is let finish.
func TestAddressChange(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c")
	reg.set("web", members...)
	conn := dial(t, grpcring.NewBuilder(dialRegistry(t, reg)))
	id := owners(members, "alice")[0]
	stream, err := conn.NewStream(grpcring.WithKey(testContext(t), "alice"), &whoDesc.Streams[0], "/test.Who/Ask")
	if err != nil {
		t.Fatal(err)
	}
	at := func() string {
		t.Helper()
		reply := new(wrapperspb.StringValue)
		if err := stream.SendMsg(wrapperspb.String("")); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(reply); err != nil {
			t.Fatal(err)
		}
		return reply.GetValue()
	}
	if got := at(); got != services[id].addr {
		t.Fatalf("the stream is at %s", got)
	}
	others := map[string]int64{}
	for o, s := range services {
		others[o] = s.made.Load()
	}
	moved := startService(t, id, "")
	for _, m := range members {
		if m.Id == id {
			m.Addr = moved.addr
		}
	}
	reg.set("web", members...)
	eventually(t, "the new address is used", func() bool {
		mustAsk(t, conn, "alice", id)
		return moved.made.Load() > 0
	})
	if got := at(); got != services[id].addr {
		t.Errorf("the stream went to %s", got)
	}
	for o, s := range services {
		if got := s.made.Load(); got != others[o] {
			t.Errorf("%d new connections to the old %s", got-others[o], o)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if err := stream.RecvMsg(new(wrapperspb.StringValue)); err != io.EOF {
		t.Errorf("the end of the stream: %v", err)
	}
	eventually(t, "the old connection is closed", func() bool { return services[id].open.Load() == 0 })
}

// Every call, while the group changes without a pause, is answered by the owner
// in the one ring that its route names.
func TestPicksAreOfOneRing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	reg := startRegistry(t)
	_, members := fleet(t, "a", "b", "c", "d", "e", "f")
	reg.set("web", members...)
	client := dialRegistry(t, reg)
	ring, err := client.Ring(testContext(t), "web")
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, grpcring.NewBuilder(client, grpcring.WithRing(ring)))
	var mu sync.Mutex
	seen := map[uint64]bool{}
	check := func(key string) error {
		id, header, err := ask(testContext(t), conn, key)
		if err != nil {
			return err
		}
		route, err := routing.ParseRoute(header)
		if err != nil {
			return err
		}
		mu.Lock()
		seen[route.Revision] = true
		mu.Unlock()
		h := reg.at(route.Revision)
		if want := h.members[h.ring.Match(key)].Id; id != want || route.Fingerprint != h.ring.Fingerprint() || route.Fallback != 0 {
			return fmt.Errorf("%s was answered by %s, the owner at %v is %s", key, id, route, want)
		}
		return nil
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := check(fmt.Sprint("user-", g, "-", i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	const changes = 100
	for i := range changes {
		some := members[:0:0]
		for _, j := range rnd.Perm(len(members))[:2+rnd.IntN(len(members)-1)] {
			some = append(some, &registrypb.Member{Id: members[j].Id, Addr: members[j].Addr, Weight: uint32(1 + rnd.IntN(4)), ModifiedIndex: uint64(i)})
		}
		if err := ring.Wait(testContext(t), reg.set("web", some...)); err != nil {
			t.Fatal(err)
		}
		for k := range 5 {
			if err := check(fmt.Sprint("main-", i, "-", k)); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if len(seen) < changes/2 {
		t.Errorf("calls saw %d of %d rings", len(seen), changes)
	}
}

func TestOwnerChecksRoute(t *testing.T) {
	reg := startRegistry(t)
	client := dialRegistry(t, reg)
	reg.set("web") // the rings of the services start before their addresses are known
	ring, err := client.Ring(testContext(t), "web")
	if err != nil {
		t.Fatal(err)
	}
	byRequest := func(_ context.Context, req any) string { return req.(*wrapperspb.StringValue).GetValue() }
	services, members := map[string]*service{}, []*registrypb.Member(nil)
	for i, id := range []string{"a", "b", "c", "d"} {
		owner := routing.NewOwner(ring, id, routing.WithRouteRequired(), routing.WithFallbacks(i%2)) // b and d accept one fallback
		services[id] = startService(t, id, "", grpc.UnaryInterceptor(owner.UnaryInterceptor(byRequest)))
		members = append(members, services[id].member())
	}
	reg.set("web", members...)
	conn := dial(t, grpcring.NewBuilder(client))
	for i := range 50 {
		key := fmt.Sprint("user-", i)
		mustAsk(t, conn, key, owners(members, key)[0])
	}
	mustFail(t, dial(t, grpcring.NewBuilder(client, grpcring.WithoutRoute())), "user-0", codes.InvalidArgument)

	find := func(next string) (string, []string) {
		for i := 0; ; i++ {
			key := fmt.Sprint("user-", i)
			if o := owners(members, key); o[0] == "a" && o[1] == next {
				return key, o
			}
		}
	}
	strict, _ := find("c")
	lenient, _ := find("b")
	services["a"].stop()
	eventually(t, "b takes a's key", func() bool {
		id, _, _ := ask(testContext(t), conn, lenient)
		return id == "b"
	})
	_, _, err = ask(testContext(t), conn, strict)
	if m := routing.MisdirectedCall(err); m == nil || m.Owner.ID != "a" {
		t.Errorf("c takes a's key: %v", err)
	}
}

// A call that its former owner refused is sent to the new one, if the service
// config says so.
func TestRefusedCallIsRetried(t *testing.T) {
	reg := startRegistry(t)
	reg.set("web")
	client := dialRegistry(t, reg)
	ring, err := client.Ring(testContext(t), "web")
	if err != nil {
		t.Fatal(err)
	}
	byRequest := func(_ context.Context, req any) string { return req.(*wrapperspb.StringValue).GetValue() }
	check := routing.NewOwner(ring, "a").UnaryInterceptor(byRequest)
	b := startService(t, "b", "")
	a := startService(t, "a", "", grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := ring.Wait(ctx, reg.set("web", b.member())); err != nil { // while the call is on its way, its owner becomes b
			return nil, err
		}
		return check(ctx, req, info, next)
	}))
	if err := ring.Wait(testContext(t), reg.set("web", a.member())); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, grpcring.NewBuilder(client, grpcring.WithServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 3,
		"retryableStatusCodes": ["FAILED_PRECONDITION"]}}]}`)))
	mustAsk(t, conn, "alice", "b")
}

// With the registry gone, connections go on; also one that was idle, and a new one.
func TestWithoutRegistry(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c")
	reg.set("web", members...)
	builder := grpcring.NewBuilder(dialRegistry(t, reg))
	conn := dial(t, builder, grpc.WithIdleTimeout(300*time.Millisecond))
	id := owners(members, "alice")[0]
	mustAsk(t, conn, "alice", id)
	reg.srv.Stop()
	mustAsk(t, conn, "alice", id)
	eventually(t, "the connection is idle", func() bool { return services[id].open.Load() == 0 })
	mustAsk(t, conn, "alice", id)
	mustAsk(t, dial(t, builder), "alice", id)
	if n := reg.opened(); n != 1 {
		t.Errorf("%d watches for one group", n)
	}
}

// A ring that is too old is not routed by. A call that waits goes on when a
// node says that the ring is current after all, although nothing has changed.
func TestMaxAge(t *testing.T) {
	reg := startRegistry(t)
	_, members := fleet(t, "a", "b")
	reg.set("web", members...)
	conn := dial(t, grpcring.NewBuilder(dialRegistry(t, reg), grpcring.WithRingOptions(func(group string) []sdk.RingOption {
		if group != "web" {
			t.Errorf("options for %q", group)
		}
		return []sdk.RingOption{sdk.WithMaxAge(300 * time.Millisecond)}
	})))
	id := owners(members, "alice")[0]
	eventually(t, "the ring is current", func() bool {
		got, _, _ := ask(testContext(t), conn, "alice")
		return got == id
	})
	reg.setMute(true)
	eventually(t, "the ring is too old", func() bool {
		_, _, err := ask(testContext(t), conn, "alice")
		return status.Code(err) == codes.Unavailable
	})
	wait := waiting(t, conn, "alice")
	reg.setMute(false)
	if got, err := wait(); err != nil || got != id {
		t.Errorf("a call that waits: %s %v", got, err)
	}
}

func TestGroupComesAndGoes(t *testing.T) {
	reg := startRegistry(t)
	conn := dial(t, grpcring.NewBuilder(dialRegistry(t, reg)))
	mustFail(t, conn, "alice", codes.Unavailable)
	wait := waiting(t, conn, "alice")
	services, members := fleet(t, "a")
	reg.set("web", members...)
	if id, err := wait(); err != nil || id != "a" {
		t.Fatalf("the group is there: %s %v", id, err)
	}
	reg.set("web", services["a"].in(registrypb.MemberState_MEMBER_STATE_DRAINING))
	eventually(t, "no member owns keys", func() bool {
		_, _, err := ask(testContext(t), conn, "alice")
		return status.Code(err) == codes.Unavailable
	})
	eventually(t, "its connection is closed", func() bool { return services["a"].open.Load() == 0 })
	reg.set("web", members...)
	if id, err := waiting(t, conn, "alice")(); err != nil || id != "a" {
		t.Errorf("the drain is over: %s %v", id, err)
	}
}

func TestClosedClient(t *testing.T) {
	reg := startRegistry(t)
	_, members := fleet(t, "a")
	reg.set("web", members...)
	client := dialRegistry(t, reg)
	builder := grpcring.NewBuilder(client)
	conn := dial(t, builder)
	mustAsk(t, conn, "alice", "a")
	_ = client.Close()
	eventually(t, "calls fail", func() bool {
		_, _, err := ask(testContext(t), conn, "alice")
		return status.Code(err) == codes.Unavailable
	})
	mustFail(t, dial(t, builder), "alice", codes.Unavailable)
}

func TestRegistryStartsLate(t *testing.T) {
	reg := startRegistry(t)
	_, members := fleet(t, "a")
	reg.set("web", members...)
	reg.srv.Stop()
	client, err := sdk.Dial(reg.addr, sdk.WithRefreshInterval(0), sdk.WithCallTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	conn := dial(t, grpcring.NewBuilder(client))
	mustFail(t, conn, "alice", codes.Unavailable) // after the call timeout
	wait := waiting(t, conn, "alice")
	reg.srv = grpc.NewServer()
	registrypb.RegisterRegistryServer(reg.srv, reg)
	serve(t, reg.srv, reg.addr)
	if id, err := wait(); err != nil || id != "a" {
		t.Errorf("%s %v", id, err)
	}
}

// Connect is for those who wait for a connection without a call.
func TestConnect(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c")
	reg.set("web", members...)
	conn := dial(t, grpcring.NewBuilder(dialRegistry(t, reg)))
	ctx := testContext(t)
	for s := conn.GetState(); s != connectivity.Ready; s = conn.GetState() {
		if s == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, s) {
			t.Fatalf("stays %v", s)
		}
	}
	made := func() (n int64) {
		for _, s := range services {
			n += s.made.Load()
		}
		return n
	}
	eventually(t, "a member has taken the connection", func() bool { return made() > 0 })
	conn.Connect() // changes nothing
	mustFail(t, conn, "", codes.Internal)
	if n := made(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestTargetsAndConfigs(t *testing.T) {
	reg := startRegistry(t)
	_, members := fleet(t, "a")
	reg.set("web", members...)
	reg.set("groß & 1", members...)
	client := dialRegistry(t, reg)
	for name, c := range map[string]struct {
		target string
		opts   []grpcring.Option
		want   codes.Code
	}{
		"plain":                  {target: "registry:///web"},
		"escaped":                {target: "registry:///gro%C3%9F%20&%201"},
		"no slashes":             {target: "registry:web"},
		"authority":              {target: "registry://node:9800/web", want: codes.Unavailable},
		"no group":               {target: "registry:///", want: codes.Unavailable},
		"bad group":              {target: "registry:///a/b", want: codes.Unavailable},
		"bad keyless":            {target: "registry:///web", opts: []grpcring.Option{grpcring.WithKeyless("guess")}, want: codes.Unavailable},
		"too many fallbacks":     {target: "registry:///web", opts: []grpcring.Option{grpcring.WithFallbacks(64)}, want: codes.Unavailable},
		"negative fallbacks":     {target: "registry:///web", opts: []grpcring.Option{grpcring.WithFallbacks(-1)}, want: codes.Unavailable},
		"binary header":          {target: "registry:///web", opts: []grpcring.Option{grpcring.WithKeyHeader("user-bin")}, want: codes.Unavailable},
		"bad header":             {target: "registry:///web", opts: []grpcring.Option{grpcring.WithKeyHeader("user id")}, want: codes.Unavailable},
		"bad service config":     {target: "registry:///web", opts: []grpcring.Option{grpcring.WithServiceConfig("{")}, want: codes.Unavailable},
		"null service config":    {target: "registry:///web", opts: []grpcring.Option{grpcring.WithServiceConfig("null")}},
		"other policy":           {target: "registry:///web", opts: []grpcring.Option{grpcring.WithServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`)}},
		"fields of the future":   {target: "registry:///web", opts: []grpcring.Option{grpcring.WithServiceConfig(`{"loadBalancingConfig":[{"registry_ring":{"mode":"x"}}]}`)}},
		"fields of another type": {target: "registry:///web", opts: []grpcring.Option{grpcring.WithServiceConfig(`{"loadBalancingConfig":[{"registry_ring":{"fallbacks":"1"}}]}`)}, want: codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient(c.target, grpc.WithResolvers(grpcring.NewBuilder(client, c.opts...)),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, _, err := ask(testContext(t), conn, "alice"); status.Code(err) != c.want {
				t.Error(err)
			}
		})
	}
}

// What a service config says beside the policy counts, and so does a default
// one where the resolver's is disabled.
func TestServiceConfig(t *testing.T) {
	reg := startRegistry(t)
	services, members := fleet(t, "a", "b", "c")
	reg.set("web", members...)
	client := dialRegistry(t, reg)
	waits := `"methodConfig": [{"name": [{"service": "test.Who"}], "waitForReady": true}]`
	conn := dial(t, grpcring.NewBuilder(client, grpcring.WithServiceConfig("{"+waits+"}"), grpcring.WithFallbacks(0)))
	spread := dial(t, grpcring.NewBuilder(client), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"registry_ring": {"keyless": "spread", "route": false}}]}`))
	id := owners(members, "alice")[0]
	if route := mustAsk(t, spread, "alice", id); route != "" {
		t.Errorf("route %s", route)
	}
	if _, _, err := ask(testContext(t), spread, ""); err != nil {
		t.Error(err)
	}
	services[id].stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := ask(ctx, conn, "alice"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the call does not wait: %v", err)
	}
}

// The policy says what is wrong with it where the endpoints are not its resolver's.
func TestPolicyWithAnotherResolver(t *testing.T) {
	r := manual.NewBuilderWithScheme("registry")
	r.InitialState(resolver.State{Endpoints: []resolver.Endpoint{{Addresses: []resolver.Address{{Addr: "127.0.0.1:1"}}}}})
	conn := dial(t, r, grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"registry_ring": {}}]}`))
	mustFail(t, conn, "alice", codes.Unavailable)
}
