package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// invalid is a call that must be refused before it reaches the log.
type invalid struct {
	name         string
	call         func(context.Context, registrypb.RegistryClient) error
	code         codes.Code
	reason       registrypb.ErrorDetail_Reason
	field, limit string // limit: a part of it
}

func invalidCalls() []invalid {
	const (
		badArgument = codes.InvalidArgument
		argument    = registrypb.ErrorDetail_INVALID_ARGUMENT
		name        = "1 to 255 bytes"
		hostport    = "host:port"
	)
	long, longKey := strings.Repeat("x", 256), make([]byte, 4097)
	register := func(change func(*registrypb.RegisterRequest)) func(context.Context, registrypb.RegistryClient) error {
		return func(ctx context.Context, c registrypb.RegistryClient) error {
			req := &registrypb.RegisterRequest{Group: "web", Id: "web-1", Addr: "127.0.0.1:8080"}
			change(req)
			_, err := c.Register(ctx, req)
			return err
		}
	}
	addr := func(a string) func(context.Context, registrypb.RegistryClient) error {
		return register(func(r *registrypb.RegisterRequest) { r.Addr = a })
	}
	ttl := func(d time.Duration) func(context.Context, registrypb.RegistryClient) error {
		return register(func(r *registrypb.RegisterRequest) { r.Ttl = durationpb.New(d) })
	}
	match := func(group string, key []byte, n uint32) func(context.Context, registrypb.RegistryClient) error {
		return func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.Match(ctx, &registrypb.MatchRequest{Group: group, Key: key, N: n})
			return err
		}
	}
	matchMany := func(group string, keys ...[]byte) func(context.Context, registrypb.RegistryClient) error {
		return func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.MatchMany(ctx, &registrypb.MatchManyRequest{Group: group, Keys: keys})
			return err
		}
	}
	members := func(group string) func(context.Context, registrypb.RegistryClient) error {
		return func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.Members(ctx, &registrypb.MembersRequest{Group: group})
			return err
		}
	}
	deregister := func(group, id string) func(context.Context, registrypb.RegistryClient) error {
		return func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.Deregister(ctx, &registrypb.DeregisterRequest{Group: group, Id: id})
			return err
		}
	}
	setGroup := func(group string, virtualNodes, bound uint32) func(context.Context, registrypb.RegistryClient) error {
		return func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.SetGroup(ctx, &registrypb.SetGroupRequest{Group: group, Config: &registrypb.GroupConfig{VirtualNodes: virtualNodes, Bound: bound}})
			return err
		}
	}
	deleteGroup := func(group string) func(context.Context, registrypb.RegistryClient) error {
		return func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.DeleteGroup(ctx, &registrypb.DeleteGroupRequest{Group: group, Force: true})
			return err
		}
	}
	update := func(weight uint32, state registrypb.MemberState) func(context.Context, registrypb.RegistryClient) error {
		return func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.UpdateMember(ctx, &registrypb.UpdateMemberRequest{Group: "web", Id: "web-1", Weight: &weight, State: &state})
			return err
		}
	}
	meta := func(pairs int, size int) map[string]string {
		m := map[string]string{}
		for i := range pairs {
			m[fmt.Sprintf("key-%d", i)] = strings.Repeat("v", size)
		}
		return m
	}
	heavy := make([][]byte, 1000) // 2 MiB of keys that are each short enough
	for i := range heavy {
		heavy[i] = make([]byte, 2<<20/len(heavy))
	}
	return []invalid{
		{"empty id", register(func(r *registrypb.RegisterRequest) { r.Id = "" }), badArgument, argument, "id", name},
		{"id of 256 bytes", register(func(r *registrypb.RegisterRequest) { r.Id = long }), badArgument, argument, "id", name},
		{"id with a slash", register(func(r *registrypb.RegisterRequest) { r.Id = "a/b" }), badArgument, argument, "id", name},
		{"id with a newline", register(func(r *registrypb.RegisterRequest) { r.Id = "a\nb" }), badArgument, argument, "id", name},
		{"empty group", register(func(r *registrypb.RegisterRequest) { r.Group = "" }), badArgument, argument, "group", name},
		{"group of 256 bytes", register(func(r *registrypb.RegisterRequest) { r.Group = long }), badArgument, argument, "group", name},
		{"group with a slash", register(func(r *registrypb.RegisterRequest) { r.Group = "a/b" }), badArgument, argument, "group", name},
		{"weight 1001", register(func(r *registrypb.RegisterRequest) { r.Weight = 1001 }), badArgument, argument, "weight", "1 to 1000"},
		{"ttl 0", ttl(0), badArgument, argument, "ttl", "1s to 24h"},
		{"ttl below a second", ttl(999 * time.Millisecond), badArgument, argument, "ttl", "1s to 24h"},
		{"ttl negative", ttl(-time.Hour), badArgument, argument, "ttl", "1s to 24h"},
		{"ttl 25h", ttl(25 * time.Hour), badArgument, argument, "ttl", "1s to 24h"},
		{"ttl beyond a time.Duration", register(func(r *registrypb.RegisterRequest) { r.Ttl = &durationpb.Duration{Seconds: 1 << 62} }), badArgument, argument, "ttl", "1s to 24h"},
		{"no address", addr(""), badArgument, argument, "addr", hostport},
		{"address without a port", addr("127.0.0.1"), badArgument, argument, "addr", hostport},
		{"address without a host", addr(":8080"), badArgument, argument, "addr", hostport},
		{"address with port 0", addr("127.0.0.1:0"), badArgument, argument, "addr", hostport},
		{"address with port 65536", addr("127.0.0.1:65536"), badArgument, argument, "addr", hostport},
		{"address with a named port", addr("127.0.0.1:http"), badArgument, argument, "addr", hostport},
		{"address with a space", addr("my host:8080"), badArgument, argument, "addr", hostport},
		{"address that is a URL", addr("http://my-host:8080"), badArgument, argument, "addr", hostport},
		{"address of 256 bytes", addr(strings.Repeat("h", 251) + ":8080"), badArgument, argument, "addr", "at most 255"},
		{"address of all interfaces", addr("0.0.0.0:8080"), badArgument, argument, "addr", "not 0.0.0.0"},
		{"address of all interfaces of IPv6", addr("[::]:8080"), badArgument, argument, "addr", "not 0.0.0.0"},
		{"registration in the nodes' group", register(func(r *registrypb.RegisterRequest) { r.Group = "registry-group" }), badArgument, argument, "group", "reserved"},
		{"parameters of the nodes' group", setGroup("registry-group", 256, 0), badArgument, argument, "group", "reserved"},
		{"deregister in the nodes' group", deregister("registry-group", "n1"), badArgument, argument, "group", "reserved"},
		{"deletion of the nodes' group", deleteGroup("registry-group"), badArgument, argument, "group", "reserved"},
		{"instance of 65 bytes", register(func(r *registrypb.RegisterRequest) { r.Instance = make([]byte, 65) }), badArgument, argument, "instance", "64"},
		{"65 pairs of metadata", register(func(r *registrypb.RegisterRequest) { r.Meta = meta(65, 1) }), badArgument, argument, "meta", "64 pairs"},
		{"9 KiB of metadata", register(func(r *registrypb.RegisterRequest) { r.Meta = meta(9, 1<<10) }), badArgument, argument, "meta", "8192"},
		{"metadata without a key", register(func(r *registrypb.RegisterRequest) { r.Meta = map[string]string{"": "v"} }), badArgument, argument, "meta", "key"},
		{"registration of 2 MiB", register(func(r *registrypb.RegisterRequest) { r.Meta = meta(1, 2<<20) }), codes.ResourceExhausted, registrypb.ErrorDetail_UNSPECIFIED, "", ""},
		{"2 MiB of keys", matchMany("web", heavy...), codes.ResourceExhausted, registrypb.ErrorDetail_UNSPECIFIED, "", ""},
		{"deregister without an id", deregister("web", ""), badArgument, argument, "id", name},
		{"deregister with a slash", deregister("a/b", "web-1"), badArgument, argument, "group", name},
		{"set group without a name", setGroup("", 256, 0), badArgument, argument, "group", name},
		{"virtual nodes no power of two", setGroup("web", 100, 0), badArgument, argument, "virtual_nodes", "64 to 4096"},
		{"too many virtual nodes", setGroup("web", 8192, 0), badArgument, argument, "virtual_nodes", "64 to 4096"},
		{"bound below the fair share", setGroup("web", 256, 999), badArgument, argument, "bound", "per mille"},
		{"update to weight 0", update(0, 0), badArgument, argument, "weight", "1 to 1000"},
		{"update to weight 1001", update(1001, 0), badArgument, argument, "weight", "1 to 1000"},
		{"update to an unknown state", update(1, 7), badArgument, argument, "state", "active, draining or held"},
		{"too many leases in a heartbeat", func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.Heartbeat(ctx, &registrypb.HeartbeatRequest{LeaseIds: make([]uint64, 1001)})
			return err
		}, badArgument, argument, "lease_ids", "at most 1000"},
		{"update of nothing", func(ctx context.Context, c registrypb.RegistryClient) error {
			_, err := c.UpdateMember(ctx, &registrypb.UpdateMemberRequest{Group: "web", Id: "web-1"})
			return err
		}, badArgument, argument, "weight", "or else state"},
		{"match without a key", match("web", nil, 1), badArgument, argument, "key", "set"},
		{"match with a key of 4097 bytes", match("web", longKey, 1), badArgument, argument, "key", "at most 4096"},
		{"match many with a key of 4097 bytes", matchMany("web", []byte("k"), longKey), badArgument, argument, "key", "at most 4096"},
		{"match with too many owners", match("web", []byte("k"), 1001), badArgument, argument, "n", "at most 1000"},
		{"match without keys", matchMany("web"), badArgument, argument, "keys", "1 to 1000"},
		{"match with 1001 keys", matchMany("web", make([][]byte, 1001)...), badArgument, argument, "keys", "1 to 1000"},
		{"match in no group", match("", []byte("k"), 1), badArgument, argument, "group", name},
		{"match in an unknown group", match("nowhere", []byte("k"), 1), codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP, "", ""},
		{"match many in an unknown group", matchMany("nowhere", []byte("k")), codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP, "", ""},
		{"members of an unknown group", members("nowhere"), codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP, "", ""},
		{"members of a group with a slash", members("a/b"), badArgument, argument, "group", name},
	}
}

func detailOf(err error) *registrypb.ErrorDetail {
	for _, d := range status.Convert(err).Details() {
		if detail, is := d.(*registrypb.ErrorDetail); is {
			return detail
		}
	}
	return &registrypb.ErrorDetail{}
}

// TestBadInput sends what is out of limits to leader and followers, by gRPC,
// by the CLI and as garbage. All of it is answered, nothing of it reaches the
// log, and the cluster works on.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	keptMember(t, c.nodes[0].addr)
	before := c.quiet(3)
	for _, n := range c.nodes {
		t.Run("grpc/"+n.id, func(t *testing.T) { sendInvalid(t, n.addr) })
	}
	t.Run("sdk", func(t *testing.T) { sdkLimits(t, c.addrs()) })
	t.Run("cli", func(t *testing.T) { cliRefuses(t, c) })
	t.Run("garbage", func(t *testing.T) { sendGarbage(t, c) })

	after := c.quiet(3)
	checkNothingLogged(t, before, after)
	for i, n := range c.nodes {
		if n.hasEnded() {
			t.Errorf("%s ended with exit code %d", n.id, n.code)
			continue
		}
		told := &events{}
		service(t, dial(t, n.addr), "web", fmt.Sprintf("web-%d", i), 10*time.Second, told)
	}
	c.settled(3)
}

// checkNothingLogged compares the log's length before and after.
func checkNothingLogged(t *testing.T, before, after *registrypb.StatusResponse) {
	t.Helper()
	was, is := before.Nodes[0].AppliedIndex, after.Nodes[0].AppliedIndex
	t.Logf("index %d before, %d after; term %d before, %d after", was, is, before.Term, after.Term)
	if before.Term != after.Term {
		t.Log("the leader changed, and a term has entries of its own: the log's length tells nothing")
	} else if was != is {
		t.Errorf("%d entries reached the log", is-was)
	}
}

func sendInvalid(t *testing.T, addr string) {
	conn := connect(t, addr)
	client := registrypb.NewRegistryClient(conn)
	for _, tt := range invalidCalls() {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := tt.call(ctx, client)
			d := detailOf(err)
			if status.Code(err) != tt.code || d.Reason != tt.reason || d.Field != tt.field || !strings.Contains(d.Limit, tt.limit) || (tt.limit == "") != (d.Limit == "") {
				t.Errorf("got %v, detail %v\nwant %v, %v, field %q, limit with %q", err, d, tt.code, tt.reason, tt.field, tt.limit)
			}
			if msg := status.Convert(err).Message(); len(msg) > 1000 {
				t.Errorf("message of %d bytes", len(msg))
			}
		})
	}
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
}

// sdkLimits: what the SDK makes of the answers, and what it says itself.
func sdkLimits(t *testing.T, addrs string) {
	client := dial(t, addrs)
	register := func(s sdk.Service) error {
		_, err := client.Register(t.Context(), s)
		return err
	}
	match := func(group, key string) error {
		_, err := client.Match(t.Context(), group, key)
		return err
	}
	good := sdk.Service{Group: "web", ID: "web-1", Addr: "127.0.0.1:8080"}
	with := func(change func(*sdk.Service)) sdk.Service {
		s := good
		change(&s)
		return s
	}
	for _, tt := range []struct {
		name, field, limit string
		err                error
		is                 error
	}{
		{"id with a slash", "id", "255", register(with(func(s *sdk.Service) { s.ID = "a/b" })), sdk.ErrInvalidArgument},
		{"id that is not UTF-8", "id", "UTF-8", register(with(func(s *sdk.Service) { s.ID = "\xff" })), sdk.ErrInvalidArgument},
		{"weight", "weight", "1000", register(with(func(s *sdk.Service) { s.Weight = 1001 })), sdk.ErrInvalidArgument},
		{"ttl", "ttl", "24h", register(with(func(s *sdk.Service) { s.TTL = 25 * time.Hour })), sdk.ErrInvalidArgument},
		{"addr", "addr", "host:port", register(with(func(s *sdk.Service) { s.Addr = "nowhere" })), sdk.ErrInvalidArgument},
		{"2 MiB", "request", "1 MiB", register(with(func(s *sdk.Service) { s.Meta = map[string]string{"k": strings.Repeat("v", 2<<20)} })), sdk.ErrInvalidArgument},
		{"key", "key", "4096", match("kept", strings.Repeat("k", 4097)), sdk.ErrInvalidArgument},
		{"unknown group", "", "", match("nowhere", "k"), sdk.ErrUnknownGroup},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := (*sdk.Error)(nil)
			if !errors.Is(tt.err, tt.is) || !errors.As(tt.err, &e) || e.Field != tt.field || !strings.Contains(e.Limit, tt.limit) {
				t.Errorf("got %#v, want %v, field %q, limit with %q", tt.err, tt.is, tt.field, tt.limit)
			}
		})
	}
}

// sendGarbage writes to both ports of every node what is no protocol of theirs.
func sendGarbage(t *testing.T, c *cluster) {
	lines := map[string]string{
		"nothing":      "",
		"zeros":        strings.Repeat("\x00", 4096),
		"text":         "hello\r\n\r\n",
		"TLS":          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"raft garbage": "R" + strings.Repeat("\xff", 4096),
		"raft no call": "R\x00",
		"HTTP/2":       "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 256),
		"long header":  "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 128<<10) + "\r\n\r\n",
	}
	for _, n := range c.nodes {
		for _, addr := range []string{n.bind, n.addr} {
			for what, line := range lines {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatalf("%s: %v", n.id, err)
				}
				if _, err := conn.Write([]byte(line)); err != nil {
					t.Logf("%s: %s at %s: %v", n.id, what, addr, err) // it may hang up at once
				}
				if err := conn.Close(); err != nil {
					t.Errorf("%s: %s: %v", n.id, what, err)
				}
			}
		}
	}
}
