package rpc_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/docs"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/storetest"
)

// credential is what a caller presents.
type credential struct {
	name  string
	valid bool
	text  string // of the header; empty: none
}

// tableCluster is three nodes with tokens, and bind ports locked by a secret.
type tableCluster struct {
	*registrytest.Cluster
	id          string // of the cluster
	lease       uint64 // of a member that belongs to another token
	credentials []credential
	client      []*grpc.ClientConn // to the client ports: of the leader, of a follower
	node        []*grpc.ClientConn // to the bind ports
	addrs       []string           // client ports
}

func may(prefix string, rights ...registrypb.Right) *registrypb.Grant {
	return &registrypb.Grant{Prefix: prefix, Rights: rights}
}

func dial(t *testing.T, addr string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func writeSecret(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// secretIdentity is a node's by a secret.
func secretIdentity(t *testing.T, cluster, id, secret string) *peertls.Identity {
	t.Helper()
	i, err := peertls.Open(peertls.Config{Cluster: cluster, ID: id, SecretFile: writeSecret(t, secret),
		Logger: slog.New(slog.DiscardHandler), Refused: func(peertls.Reason) {}, Unusable: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newTableCluster(t *testing.T) *tableCluster {
	t.Helper()
	secret := peertls.NewSecret()
	c := &tableCluster{Cluster: registrytest.Start(t, registrytest.WithNodes(3), registrytest.WithSecret(writeSecret(t, secret)))}
	leader := c.Leader()
	st, err := c.Client().Status(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	c.id = st.ClusterID
	creds := secretIdentity(t, "registry", "node-1", secret).Credentials()
	for _, i := range []int{leader, (leader + 1) % 3} {
		n := c.Nodes()[i]
		c.addrs = append(c.addrs, n.Addr())
		c.client = append(c.client, dial(t, n.Addr(), insecure.NewCredentials()))
		c.node = append(c.node, dial(t, n.BindAddr(), creds))
	}
	c.makeCredentials(t)
	return c
}

const (
	rightDiscover = registrypb.Right_RIGHT_DISCOVER
	rightRegister = registrypb.Right_RIGHT_REGISTER
	rightOperate  = registrypb.Right_RIGHT_OPERATE
	rightAdmin    = registrypb.Right_RIGHT_ADMIN
)

// makeCredentials turns tokens on, makes those of the table and what they are used on.
func (c *tableCluster) makeCredentials(t *testing.T) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tokens := registrypb.NewTokensClient(c.client[0])
	all, id, hash := registrypb.MakeToken()
	_, err := tokens.Init(t.Context(), &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "all"}})
	ok(err)
	ctx := presenting(t.Context(), "Bearer "+all)
	create := func(name string, expires time.Time, grants ...*registrypb.Grant) (string, []byte) {
		t.Helper()
		text, id, hash := registrypb.MakeToken()
		token := &registrypb.NewToken{Id: id, Hash: hash, Name: name, Grants: grants}
		if !expires.IsZero() {
			token.ExpiresAt = timestamppb.New(expires)
		}
		_, err := tokens.Create(ctx, &registrypb.CreateTokenRequest{Token: token})
		ok(err)
		return text, id
	}
	everything := []*registrypb.Grant{may("", rightDiscover, rightRegister, rightOperate, rightAdmin)}
	end := time.Now().Add(2 * time.Second)
	expired, _ := create("expired", end, everything...)
	revoked, _ := create("revoked", time.Time{}, everything...)
	_, err = tokens.Revoke(ctx, &registrypb.RevokeTokenRequest{Name: "revoked"})
	ok(err)
	rotated, rotatedID := create("rotated", time.Time{}, everything...)
	_, hash = registrypb.MakeTokenSecret(rotatedID)
	_, err = tokens.Rotate(ctx, &registrypb.RotateTokenRequest{Name: "rotated", Hash: hash})
	ok(err)
	unknown, _, _ := registrypb.MakeToken()
	c.credentials = []credential{
		{"no token", false, ""}, {"malformed", false, "Bearer " + all[:len(all)-1]}, {"unknown", false, "Bearer " + unknown},
		{"expired", false, "Bearer " + expired}, {"revoked", false, "Bearer " + revoked}, {"rotated away", false, "Bearer " + rotated},
	}
	for _, v := range []struct {
		name   string
		grants []*registrypb.Grant
	}{
		{"other group's", []*registrypb.Grant{may("other-", rightDiscover, rightRegister, rightOperate)}},
		{"discover", []*registrypb.Grant{may("web-", rightDiscover)}},
		{"register", []*registrypb.Grant{may("web-", rightRegister)}},
		{"operate", []*registrypb.Grant{may("web-", rightOperate)}},
		{"discover everything", []*registrypb.Grant{may("", rightDiscover)}},
		{"admin", []*registrypb.Grant{may("", rightAdmin)}},
	} {
		text, _ := create(v.name, time.Time{}, v.grants...)
		c.credentials = append(c.credentials, credential{v.name, true, "Bearer " + text})
	}
	c.credentials = append(c.credentials, credential{"all", true, "Bearer " + all})
	create("spare", time.Time{}, may("web-", rightDiscover))
	owner, _ := create("owner", time.Time{}, may("web-", rightRegister))
	var index uint64
	for _, member := range []string{"owned", "taken"} {
		r, err := registrypb.NewRegistryClient(c.client[0]).Register(presenting(t.Context(), "Bearer "+owner), &registrypb.RegisterRequest{
			Group: "web-1", Id: member, Addr: "10.0.0.1:80", Instance: []byte("instance"), Ttl: durationpb.New(time.Hour),
		})
		ok(err)
		if member == "owned" {
			c.lease = r.LeaseId
		}
		index = r.Index
	}
	_, err = registrypb.NewRegistryClient(c.client[1]).Index(untilKnown(t, c.client[1], ctx), &registrypb.IndexRequest{Read: &registrypb.ReadOptions{MinIndex: index}})
	ok(err)
	<-time.After(time.Until(end))
}

// untilKnown returns ctx when the node knows its token.
func untilKnown(t *testing.T, conn *grpc.ClientConn, ctx context.Context) context.Context {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(registrytest.Patience); ; <-tick.C {
		_, err := registrypb.NewTokensClient(conn).Self(ctx, &registrypb.SelfRequest{})
		if err == nil {
			return ctx
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// presenting adds an authorization header to a call, unless it is empty.
func presenting(ctx context.Context, header string) context.Context {
	if header == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, registrypb.AuthorizationHeader, header)
}

// way is how a call comes.
type way struct {
	name string
	port string
	conn func(*tableCluster) *grpc.ClientConn
	mark bool // as a forwarded call
	// follower: a call that only the leader answers gets Unavailable instead.
	follower bool
}

var ways = []way{
	{"the leader", clients, func(c *tableCluster) *grpc.ClientConn { return c.client[0] }, false, false},
	{"a follower", clients, func(c *tableCluster) *grpc.ClientConn { return c.client[1] }, false, false},
	{"the leader, with a forged mark of a forwarded call", clients, func(c *tableCluster) *grpc.ClientConn { return c.client[0] }, true, false},
	{"a follower, with a forged mark", clients, func(c *tableCluster) *grpc.ClientConn { return c.client[1] }, true, false},
	{"the leader's bind port", nodes, func(c *tableCluster) *grpc.ClientConn { return c.node[0] }, false, false},
	{"the leader's bind port, forwarded", nodes, func(c *tableCluster) *grpc.ClientConn { return c.node[0] }, true, false},
	{"a follower's bind port", nodes, func(c *tableCluster) *grpc.ClientConn { return c.node[1] }, false, false},
	{"a follower's bind port, forwarded", nodes, func(c *tableCluster) *grpc.ClientConn { return c.node[1] }, true, true},
}

// call makes a call of a row, and returns its code.
func (r row) call(ctx context.Context, c *tableCluster, w way, header string) error {
	ctx, cancel := context.WithTimeout(presenting(ctx, header), 20*time.Second)
	defer cancel()
	if w.mark {
		ctx = metadata.AppendToOutgoingContext(ctx, rpc.ForwardedKey, c.id)
	}
	req, resp := r.req(c), proto.Clone(r.resp)
	if !r.stream {
		return w.conn(c).Invoke(ctx, r.method, req, resp)
	}
	stream, err := w.conn(c).NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, r.method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err != nil && err != io.EOF {
		return err
	}
	if !strings.HasSuffix(r.method, "Stream") && !strings.HasSuffix(r.method, "Info") {
		if err := stream.CloseSend(); err != nil {
			return err
		}
	}
	return stream.RecvMsg(resp)
}

// allows reports whether a credential is among those that may call.
func allows(may string, c credential) bool {
	switch may {
	case everybody:
		return true
	case anyToken:
		return c.valid
	}
	return slices.Contains(strings.Split(may, ", "), c.name)
}

// answers are how the table shows what a caller gets.
func answerOf(may string, c credential) string {
	switch {
	case allows(may, c):
		return "yes"
	case !c.valid:
		return "U"
	}
	return "D"
}

func (r row) want(w way, c credential) []codes.Code {
	if r.ports != both && r.ports != w.port {
		return []codes.Code{codes.Unimplemented}
	}
	switch answerOf(r.may, c) {
	case "U":
		return []codes.Code{codes.Unauthenticated}
	case "D":
		if w.follower { // the lease's owner is the leader's to know
			return []codes.Code{codes.PermissionDenied, codes.Unavailable}
		}
		return []codes.Code{codes.PermissionDenied}
	}
	if w.follower {
		return []codes.Code{r.answer, codes.Unavailable}
	}
	return []codes.Code{r.answer}
}

// Every method of both ports, every HTTP route, and every credential, in every way in
// which a call comes.
func TestDocumentedPermissions(t *testing.T) {
	if testing.Short() {
		t.Skip("7,618 calls of one leader: with the race detector it takes long enough to lose it")
	}
	t.Parallel()
	c, rows := newTableCluster(t), methodRows()
	wantRows(t, rows)
	cells := 0
	for _, r := range rows {
		for _, w := range ways {
			for _, cred := range c.credentials {
				cells++
				if err := r.call(t.Context(), c, w, cred.text); !slices.Contains(r.want(w, cred), status.Code(err)) {
					t.Errorf("%s (%s), %s, at %s: %v, want %v", r.method, r.about, cred.name, w.name, err, r.want(w, cred))
				}
			}
		}
	}
	for _, r := range c.routes() {
		for i, addr := range c.addrs {
			for _, cred := range c.credentials {
				cells++
				want := statuses[answerOf(r.may, cred)]
				if want == nil {
					want = []int{r.answer, http.StatusServiceUnavailable} // the node may have no leader for a while
				}
				if got := request(t, r.route, r.request, r.body, addr, cred.text); !slices.Contains(want, got) {
					t.Errorf("%s (%s), %s, at node %d: %d, want %v", r.route, r.about, cred.name, i, got, want)
				}
			}
		}
	}
	t.Logf("%d calls", cells)
	if err := docs.Generated("..", "docs/reference/permissions.md", "permissions", c.table(rows), *rpc.UpdateDocuments); err != nil {
		t.Error(err)
	}
}

// routes are the routes with every kind of request.
func (c *tableCluster) routes() (all []route) {
	kinds := c.routeKinds()
	for _, r := range routeRows {
		all = append(all, route{route: r.route, request: r.request, body: r.body, may: r.may, answer: r.answer})
		for _, k := range kinds {
			if k.route == r.route {
				all = append(all, k)
			}
		}
	}
	return all
}

// statuses are those of HTTP, but of a call's own answer. Too many wrong tokens of one source get 429.
var statuses = map[string][]int{
	"U": {http.StatusUnauthorized, http.StatusTooManyRequests}, "D": {http.StatusForbidden},
}

func request(t *testing.T, route, path, body, addr, header string) int {
	t.Helper()
	method, own, _ := strings.Cut(route, " ")
	if path == "" {
		path = own
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if header != "" {
		req.Header.Set("Authorization", header)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// wantRows fails for a method or a route without a row, and for a row without one.
func wantRows(t *testing.T, rows []row) {
	t.Helper()
	s, err := rpc.New(rpc.Config{Store: storetest.New(t).Open("n1").Store, Peers: rpc.NewPeers(nil), Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	have := map[string]map[string]bool{clients: {}, nodes: {}, "http": {}}
	for _, r := range rows {
		for _, port := range []string{clients, nodes} {
			if r.ports == port || r.ports == both {
				have[port][r.method] = true
			}
		}
	}
	for _, r := range routeRows {
		have["http"][r.route] = true
	}
	for port, methods := range map[string][]string{clients: s.ClientMethods(), nodes: s.NodeMethods(), "http": s.Routes()} {
		for _, m := range methods {
			if !have[port][m] {
				t.Errorf("%s, %s has no row", port, m)
			}
			delete(have[port], m)
		}
		for m := range have[port] {
			t.Errorf("%s, %s: a row, and no method", port, m)
		}
	}
}

// table is the table of the document.
func (c *tableCluster) table(rows []row) string {
	var out strings.Builder
	out.WriteString("| call | ports |")
	for _, cred := range c.credentials {
		fmt.Fprintf(&out, " %s |", cred.name)
	}
	out.WriteString("\n|---|---|" + strings.Repeat("---|", len(c.credentials)) + "\n")
	line := func(name, ports, may string) {
		fmt.Fprintf(&out, "| %s | %s |", name, ports)
		for _, cred := range c.credentials {
			fmt.Fprintf(&out, " %s |", answerOf(may, cred))
		}
		out.WriteByte('\n')
	}
	for _, r := range rows {
		short := r.method[strings.LastIndexByte(r.method[:strings.LastIndexByte(r.method, '/')], '.')+1:]
		if strings.Contains(r.method, "v1alpha") {
			short += " (v1alpha)"
		}
		name := "`" + short + "`"
		if r.about != "" {
			name += ", " + r.about
		}
		line(name, r.ports, r.may)
	}
	for _, r := range c.routes() {
		name := "`" + r.route + "`"
		if r.about != "" {
			name += ", " + r.about
		}
		line(name, clients, r.may)
	}
	return out.String()
}
