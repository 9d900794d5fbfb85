package rpc_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// named is the header of one of the table's credentials.
func (c *tableCluster) named(t *testing.T, name string) string {
	t.Helper()
	for _, cred := range c.credentials {
		if cred.name == name {
			return cred.text
		}
	}
	t.Fatalf("no credential %q", name)
	return ""
}

func (c *tableCluster) as(t *testing.T, name string) context.Context {
	t.Helper()
	return presenting(t.Context(), c.named(t, name))
}

func (c *tableCluster) register(t *testing.T, as, group, id string) *registrypb.RegisterResponse {
	t.Helper()
	r, err := registrypb.NewRegistryClient(c.client[0]).Register(c.as(t, as), &registrypb.RegisterRequest{
		Group: group, Id: id, Addr: "10.0.0.1:80", Instance: []byte(id), Ttl: durationpb.New(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// field is a header field in HPACK, a literal without indexing.
func field(name, value string) []byte {
	b := append([]byte{0, byte(len(name))}, name...)
	if len(value) < 127 {
		b = append(b, byte(len(value)))
	} else {
		b = append(b, 127, byte(len(value)-127))
	}
	return append(b, value...)
}

// rawCall makes a call without a request's fields by frames, and reports whether it was
// answered with a message: an error has none.
func rawCall(t *testing.T, addr, path string, headers ...[2]string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var block []byte
	for _, h := range append([][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}}, headers...) {
		block = append(block, field(h[0], h[1])...)
	}
	const settings, headersKind, data, endHeaders, endStream = 4, 1, 0, 4, 1
	b := rpc.H2Frame([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings, 0, 0, nil)
	b = rpc.H2Frame(b, headersKind, endHeaders, 1, block)
	b = rpc.H2Frame(b, data, endStream, 1, []byte{0, 0, 0, 0, 0})
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	for {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return false // the connection was closed
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return false
		}
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case stream == 1 && kind == data:
			return true
		case stream == 1 && (kind == 3 || flags&endStream != 0), kind == 7: // reset, end, or go away
			return false
		}
	}
}

// No spelling of a path leads to a method around its permission: grpc-go CVE-2026-33186
// took a path without a slash, Dapr CVE-2023-37918 another case.
func TestPathsDoNotBypassPermissions(t *testing.T) {
	t.Parallel()
	c := newTableCluster(t)
	const path = "/registry.v1.Tokens/List"
	all := [2]string{"authorization", c.named(t, "all")}
	if !rawCall(t, c.addrs[0], path, all) {
		t.Fatal("the true path with a token is not answered")
	}
	for _, p := range []string{
		path, path[1:], "/" + path, "//registry.v1.Tokens//List", "/registry.v1.Tokens//List", "/registry.v1.Tokens%2fList", "%2fregistry.v1.Tokens/List",
		"/registry.v1.tokens/list", "/REGISTRY.V1.TOKENS/LIST", path + "/", path + "?x", path + "#x", path + "\x00", " " + path, "/registry.v1.Health/../Tokens/List",
		"/grpc.health.v1.Health/Check/../../registry.v1.Tokens/List", "http://x" + path, "", "*", "/",
	} {
		for _, token := range [][][2]string{nil, {{"authorization", c.named(t, "discover")}}} {
			for _, addr := range c.addrs {
				if rawCall(t, addr, p, token...) {
					t.Errorf("%q is answered to %q", p, token)
				}
			}
		}
	}
}

// Two headers are none, their order does not matter, and a token is nowhere but in its
// header. Nacos CVE-2021-29441 trusted a user-agent, and others an address that a proxy
// claims.
func TestForgedHeaders(t *testing.T) {
	t.Parallel()
	c := newTableCluster(t)
	const path = "/registry.v1.Registry/Index"
	all, other := c.named(t, "all"), c.named(t, "unknown")
	text := strings.TrimPrefix(all, "Bearer ")
	for _, tc := range []struct {
		name    string
		headers [][2]string
		want    bool
	}{
		{"the token", [][2]string{{"authorization", all}}, true},
		{"the scheme in another case", [][2]string{{"authorization", "bEARER " + text}}, true},
		{"twice", [][2]string{{"authorization", all}, {"authorization", all}}, false},
		{"a wrong one behind", [][2]string{{"authorization", all}, {"authorization", other}}, false},
		{"a wrong one before", [][2]string{{"authorization", other}, {"authorization", all}}, false},
		{"in one header", [][2]string{{"authorization", all + ", " + all}}, false},
		{"the header in another case", [][2]string{{"Authorization", all}}, false},
		{"a proxy's header", [][2]string{{"proxy-authorization", all}}, false},
		{"a binary header", [][2]string{{"authorization-bin", all}}, false},
		{"a cookie", [][2]string{{"cookie", "token=" + text}}, false},
		{"a trusted agent", [][2]string{{"user-agent", "Nacos-Server"}, {"server-identity", "security"}}, false},
		{"a trusted address", [][2]string{{"x-forwarded-for", "127.0.0.1"}, {"x-real-ip", "127.0.0.1"}, {"forwarded", "for=127.0.0.1"}}, false},
		{"a forwarded call", [][2]string{{rpc.ForwardedKey, c.id}}, false},
		{"a certificate that a proxy saw", [][2]string{{"x-forwarded-client-cert", "URI=registry://registry/node/node-1"}, {"x-ssl-client-verify", "SUCCESS"}}, false},
	} {
		for _, addr := range c.addrs {
			if got := rawCall(t, addr, path, tc.headers...); got != tc.want {
				t.Errorf("%s: answered: %t", tc.name, got)
			}
			if tc.name == "the token" || strings.HasPrefix(tc.name, "the ") { // HTTP/1.1 headers have no case
				continue
			}
			if code := getWith(t, addr, tc.headers); code != http.StatusUnauthorized && code != http.StatusTooManyRequests {
				t.Errorf("%s, HTTP: %d", tc.name, code)
			}
		}
	}
}

func getWith(t *testing.T, addr string, headers [][2]string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		req.Header.Add(h[0], h[1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// One foreign item refuses the whole call, and has no effect on the others: etcd
// CVE-2026-33343 and CVE-2026-44283 looked at the call and not at its items.
func TestOneForeignItemRefusesTheCall(t *testing.T) {
	t.Parallel()
	c := newTableCluster(t)
	own := c.register(t, "register", "web-1", "own").LeaseId
	for i, conn := range c.client {
		api := registrypb.NewRegistryClient(conn)
		if r, err := api.Heartbeat(c.as(t, "register"), &registrypb.HeartbeatRequest{LeaseIds: []uint64{own}}); err != nil || len(r.Lost) != 0 {
			t.Errorf("node %d: the own lease: %v, %v", i, r, err)
		}
		for _, ids := range [][]uint64{{own, c.lease}, {c.lease, own}, {own, own, own, c.lease, own}} {
			if _, err := api.Heartbeat(c.as(t, "register"), &registrypb.HeartbeatRequest{LeaseIds: ids}); status.Code(err) != codes.PermissionDenied {
				t.Errorf("node %d, %v: %v", i, ids, err)
			}
			stream, err := api.HeartbeatStream(c.as(t, "register"))
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&registrypb.HeartbeatRequest{LeaseIds: []uint64{own}}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Errorf("node %d: a stream with the own lease: %v", i, err)
			}
			if err := stream.Send(&registrypb.HeartbeatRequest{LeaseIds: ids}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
				t.Errorf("node %d, a stream with %v: %v", i, ids, err)
			}
		}
	}
}

// A watch of a prefix has events of its groups only, also while others change: etcd
// GHSA-xg4h-6gfc-h4m8 took an empty range end for all keys, and ZooKeeper CVE-2024-23944
// told of children that the watcher may not see.
func TestWatchShowsWhatItsTokenAllows(t *testing.T) {
	t.Parallel()
	c := newTableCluster(t)
	ctx, cancel := context.WithTimeout(c.as(t, "discover"), 20*time.Second)
	defer cancel()
	for i, conn := range c.client {
		watch, err := registrypb.NewRegistryClient(conn).Watch(ctx, &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Prefix{Prefix: "web-"}})
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("m%d", i)
		for _, group := range []string{"web", "web.x", "weba-", "secret", "we"} {
			c.register(t, "all", group, id)
		}
		c.register(t, "all", "web-2", id)
		for last := false; !last; {
			event, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			text := event.String()
			for _, foreign := range []string{`"web"`, `"web.x"`, `"weba-"`, `"secret"`, `"we"`} {
				if strings.Contains(text, foreign) {
					t.Errorf("node %d: %s", i, text)
				}
			}
			last = strings.Contains(text, `"web-2"`) && strings.Contains(text, `"`+id+`"`)
		}
	}
}

// A page token is a position and no permission.
func TestPageTokensOfAnotherGroup(t *testing.T) {
	t.Parallel()
	c := newTableCluster(t)
	for i := range 5 {
		c.register(t, "all", "secret", fmt.Sprintf("hidden-%d", i))
	}
	api := registrypb.NewRegistryClient(c.client[0])
	first, err := api.Members(c.as(t, "all"), &registrypb.MembersRequest{Group: "secret", PageSize: 1})
	if err != nil || first.NextPageToken == "" {
		t.Fatalf("%v, %v", first, err)
	}
	if r, err := api.Members(c.as(t, "discover"), &registrypb.MembersRequest{Group: "web-1", PageSize: 1, PageToken: first.NextPageToken}); err == nil {
		t.Errorf("the page of another group: %v", r)
	}
	if r, err := api.Members(c.as(t, "discover"), &registrypb.MembersRequest{Group: "secret", PageSize: 1, PageToken: first.NextPageToken}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another group: %v, %v", r, err)
	}
	for _, token := range []string{"a", "secret", "web", "web-", "zzz"} {
		r, err := api.Groups(c.as(t, "discover"), &registrypb.GroupsRequest{Prefix: "web-", PageSize: 100, PageToken: token})
		if err != nil {
			t.Errorf("groups from %q: %v", token, err)
		}
		for _, g := range r.GetGroups() {
			if !strings.HasPrefix(g.Name, "web-") {
				t.Errorf("groups from %q show %q", token, g.Name)
			}
		}
	}
}

// A stream of a token ends within a second after its node has applied the revocation,
// in whichever of its states: reflection waits for the caller, a watch for changes.
func TestStreamsOfARevokedTokenEndInTime(t *testing.T) {
	t.Parallel()
	c := newTableCluster(t)
	for try := 1; ; try++ {
		n, took := c.endStreams(t, fmt.Sprint("brief-", try))
		t.Logf("%d streams ended within %v", n, took)
		if took <= streamsEndWithin {
			return
		}
		if try == 3 { // a stall of the machine may be in one
			t.Fatalf("the streams ended within %v, want %v", took, streamsEndWithin)
		}
	}
}

// endStreams opens streams with a new token, and returns how many there are and how long
// after its revocation they have ended.
func (c *tableCluster) endStreams(t *testing.T, token string) (n int, took time.Duration) {
	t.Helper()
	text, id, hash := registrypb.MakeToken()
	tokens := registrypb.NewTokensClient(c.client[0])
	if _, err := tokens.Create(c.as(t, "all"), &registrypb.CreateTokenRequest{Token: &registrypb.NewToken{
		Id: id, Hash: hash, Name: token, Grants: []*registrypb.Grant{may("", rightDiscover)},
	}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(presenting(t.Context(), "Bearer "+text), 60*time.Second)
	defer cancel()
	untilKnown(t, c.client[1], ctx)
	type open struct {
		name string
		recv func() error
	}
	var streams []open
	for i, conn := range c.client {
		watch, err := registrypb.NewRegistryClient(conn).Watch(ctx, &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Groups{Groups: true}})
		if err != nil {
			t.Fatal(err)
		}
		beats, err := registrypb.NewRegistryClient(conn).HeartbeatStream(ctx)
		if err == nil {
			err = beats.Send(&registrypb.HeartbeatRequest{})
		}
		if err != nil {
			t.Fatal(err)
		}
		services, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
		if err == nil {
			err = services.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
		}
		if err != nil {
			t.Fatal(err)
		}
		idle, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range map[string]grpc.ClientStream{"watch": watch, "heartbeats": beats, "reflection": services} {
			m := map[string]any{"watch": &registrypb.WatchEvent{}, "heartbeats": &registrypb.HeartbeatResponse{}, "reflection": &grpc_reflection_v1.ServerReflectionResponse{}}[name]
			if err := s.RecvMsg(m); err != nil {
				t.Fatalf("%s at node %d: %v", name, i, err)
			}
			streams = append(streams, open{fmt.Sprintf("%s at node %d", name, i), func() error {
				for {
					if err := s.RecvMsg(m); err != nil {
						return err
					}
				}
			}})
		}
		streams = append(streams, open{fmt.Sprintf("idle reflection at node %d", i), func() error { _, err := idle.Recv(); return err }})
	}
	if _, err := tokens.Revoke(c.as(t, "all"), &registrypb.RevokeTokenRequest{Name: token}); err != nil {
		t.Fatal(err)
	}
	applied := time.Now() // at the leader; a follower hears of it with the next message
	for _, s := range streams {
		if err := s.recv(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	return len(streams), time.Since(applied)
}
