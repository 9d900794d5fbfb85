package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/docs"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/storetest"
)

// setting is how a port is locked.
type setting struct {
	name string
	bind bool
	tls  bool
	addr string // of the port of a node that has it
}

// caller is who connects: what it shows, and what it accepts.
type caller struct {
	name   string
	opens  string // the settings that let it in
	named  bool   // another one differs from it by its name only
	secure func(ctx context.Context, raw net.Conn, protocol string) (net.Conn, error)
}

func (c caller) letIn(s setting) bool { return slices.Contains(strings.Split(c.opens, ", "), s.name) }

// connect opens a connection for a protocol of ALPN.
func (c caller) connect(ctx context.Context, addr, protocol string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn, err := c.secure(ctx, raw, protocol)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// byTLS makes the TLS connections of a config.
func byTLS(config *tls.Config) func(context.Context, net.Conn, string) (net.Conn, error) {
	return func(ctx context.Context, raw net.Conn, protocol string) (net.Conn, error) {
		own := config.Clone()
		own.NextProtos = []string{protocol}
		conn := tls.Client(raw, own)
		return conn, conn.HandshakeContext(ctx)
	}
}

// showing is a client's config that has a certificate, and judges nobody.
func showing(t *testing.T, f certs.Files) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
}

// connecting makes the connections of a node.
func connecting(i *peertls.Identity) func(context.Context, net.Conn, string) (net.Conn, error) {
	return func(ctx context.Context, raw net.Conn, protocol string) (net.Conn, error) {
		conn, err := i.Client(ctx, raw, protocol)
		if err != nil {
			return nil, err // not conn: it would be no nil
		}
		return conn, nil
	}
}

// The settings of the table.
const (
	plain, withTLS, require, ifGiven = "`-addr` alone", "`-cert`", "`-client-ca`", "`-client-auth verify-if-given`"
	bySecret, byCerts                = "`-secret-file`", "`-peer-cert`"
)

// connections are ports in each setting, and who calls them.
type connections struct {
	settings []setting
	callers  []caller
}

func newConnections(t *testing.T) *connections {
	t.Helper()
	ca, other, secret := certstest.NewCA(t), certstest.NewCA(t), peertls.NewSecret()
	server, own := ca.Server("server"), ca.Issue("node-1", certs.Request{URI: certs.NodeURI("registry", "node-1")})
	c := &connections{}
	client := func(name string, change func(*registry.Config)) {
		n := lockedNode(t, change)
		c.settings = append(c.settings, setting{name: name, tls: name != plain, addr: n.Addr()})
	}
	tlsOn := func(c *registry.Config) { c.Cert, c.Key = server.Cert, server.Key }
	client(plain, func(*registry.Config) {})
	client(withTLS, tlsOn)
	client(require, func(c *registry.Config) { tlsOn(c); c.ClientCA = ca.Path })
	client(ifGiven, func(c *registry.Config) {
		tlsOn(c)
		c.ClientCA, c.ClientAuth = ca.Path, registry.ClientAuthVerifyIfGiven
	})
	locked := writeSecret(t, secret)
	c.settings = append(c.settings,
		setting{bySecret, true, true, lockedNode(t, func(c *registry.Config) { c.SecretFile = locked }).BindAddr()},
		setting{byCerts, true, true, lockedNode(t, func(c *registry.Config) { c.PeerCert, c.PeerKey, c.PeerCA = own.Cert, own.Key, ca.Path }).BindAddr()},
	)
	c.addCallers(t, ca, other, secret, own)
	return c
}

// lockedNode is a node with tokens.
func lockedNode(t *testing.T, change func(*registry.Config)) *registry.Node {
	t.Helper()
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir, cfg.MinFreeDisk = "node-1", "127.0.0.1:0", "127.0.0.1:0", t.TempDir(), 0
	change(&cfg)
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	n, err := registry.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-n.Ready():
	case <-ctx.Done():
		t.Fatal("a node is not ready")
	}
	return n
}

// addCallers adds all kinds of callers, the refused ones first.
func (c *connections) addCallers(t *testing.T, ca, other *certstest.CA, secret string, own certs.Files) {
	t.Helper()
	node := certs.NodeURI("registry", "node-1")
	add := func(name, opens string, secure func(context.Context, net.Conn, string) (net.Conn, error)) {
		c.callers = append(c.callers, caller{name: name, opens: opens, secure: secure})
	}
	const client = withTLS + ", " + require + ", " + ifGiven
	shows := func(name, opens string, f certs.Files) { add(name, opens, byTLS(showing(t, f))) }
	is := func(name string, r certs.Request) {
		shows(name, client, ca.Issue(strings.ReplaceAll(name, " ", "-"), r))
	}
	named := func(name, uri string, hosts ...string) {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		if uri == "" {
			u = nil
		}
		is(name, certs.Request{URI: u, Hosts: hosts})
		c.callers[len(c.callers)-1].named = true
	}
	add("no TLS", plain, func(_ context.Context, raw net.Conn, _ string) (net.Conn, error) { return raw, nil })
	add("trust in another CA", "", byTLS(&tls.Config{ServerName: "127.0.0.1", RootCAs: source(t, other).Set().Pool}))
	add("TLS 1.2", "", byTLS(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}))
	add("no certificate", withTLS+", "+ifGiven, byTLS(&tls.Config{InsecureSkipVerify: true}))
	shows("another CA's", withTLS, other.Issue("node-1", certs.Request{URI: node}))
	shows("an expired one", withTLS, ca.Issue("expired", certs.Request{URI: node, Lifetime: -time.Minute}))
	shows("a server's", withTLS, ca.Server("other-server"))
	shows("a client's", client, ca.Client("client"))
	is("a client's, with a node's name", certs.Request{Client: true, URI: node})
	named("a node's of another cluster", "registry://other/node/node-1")
	named("of a longer cluster", "registry://registry2/node/node-1")
	named("of a shorter cluster", "registry://registr/node/node-1")
	named("only the common name", "")
	named("a DNS name", "", "node-1")
	named("a wildcard", "registry://registry/node/*", "*")
	named("a DNS name beside the node's", node.String(), "node-1")
	named("a prefix of the node's", "registry://registry/node/")
	named("a path behind it", "registry://registry/node/node-1/x")
	named("the node's, escaped", "registry://registry/node/node%2d1")
	named("an escaped slash", "registry://registry/node%2fnode-1")
	named("another case", "REGISTRY://Registry/node/node-1")
	named("a query", "registry://registry/node/node-1?x")
	named("a port", "registry://registry:1/node/node-1")
	knows := func(name, opens, cluster, secret string) {
		add(name, opens, connecting(secretIdentity(t, cluster, "node-1", secret)))
	}
	knows("another secret", "", "registry", peertls.NewSecret())
	knows("the secret, another cluster", "", "other", secret)
	knows("the secret, a longer cluster", "", "registry2", secret)
	shows("a node's of the cluster", client+", "+byCerts, own)
	knows("the secret", bySecret, "registry", secret)
}

func source(t *testing.T, ca *certstest.CA) *certs.Source {
	t.Helper()
	s, err := certs.Open(certs.Files{CA: ca.Path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// over opens a gRPC connection by the caller's connections.
func (c caller) over(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return c.connect(ctx, addr, rpc.GRPCProtocol.ALPN)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// methods makes every call of the table, with every kind of request and no token, and
// returns how many there were. A call that reaches a method is answered by it.
func (c caller) methods(t *testing.T, s setting) (calls int) {
	t.Helper()
	conn := c.over(t, s.addr)
	for _, r := range methodRows() {
		calls++
		err := r.call(t.Context(), &tableCluster{}, way{conn: func(*tableCluster) *grpc.ClientConn { return conn }}, "")
		reached := err == nil || len(status.Convert(err).Details()) > 0 || status.Code(err) == codes.Unimplemented
		if reached != c.letIn(s) || status.Code(err) == codes.DeadlineExceeded {
			t.Errorf("%s, %s, %s %s: %v", c.name, s.name, r.method, r.about, err)
		}
	}
	return calls
}

// routes makes every HTTP request of the table.
func (c caller) routes(t *testing.T, s setting) (calls int) {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return c.connect(ctx, addr, "http/1.1") },
	}}
	for _, r := range routeRows {
		calls++
		verb, path, _ := strings.Cut(r.route, " ")
		if r.request != "" {
			path = r.request
		}
		req, err := http.NewRequestWithContext(t.Context(), verb, "http://"+s.addr+path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		reached := false
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			reached = !strings.HasPrefix(string(body), "This port speaks TLS")
		}
		if want := c.letIn(s) && !s.bind; reached != want || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s, %s, %s: %v, %v", c.name, s.name, r.route, resp, err)
		}
	}
	return calls
}

// raft speaks raft's protocol. A node's connection stays, waiting for more; others end.
func (c caller) raft(t *testing.T, s setting) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := c.connect(ctx, s.addr, rpc.RaftProtocol.ALPN)
	if err != nil {
		if c.letIn(s) && s.bind {
			t.Errorf("%s, %s, raft: %v", c.name, s.name, err)
		}
		return
	}
	defer func() { _ = conn.Close() }()
	first, patience, want := []byte(rpc.RaftProtocol.Prefix), 20*time.Second, c.letIn(s) && s.bind
	if want {
		first, patience = []byte{36}, 200*time.Millisecond // the length of the cluster's id, which does not follow
	} else {
		first = append(first, make([]byte, 64)...)
	}
	if _, err := conn.Write(first); err != nil {
		return
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn) // an alert of TLS, or a page that says 400, then the end
	if stays := errors.Is(err, os.ErrDeadlineExceeded); stays != want || want && len(answer) > 0 {
		t.Errorf("%s, %s, raft: %q, %v", c.name, s.name, answer, err)
	}
}

// Who gets a connection, by what it shows, in every setting of the two ports: with each
// of them every method, every HTTP route and raft is called. On a locked bind port there
// is nothing for anybody but a node: Consul CVE-2021-37219 and Nacos' JRaft let others
// speak to consensus. A name is compared as a whole: ZooKeeper CVE-2026-24281 and NATS
// GHSA-3f24-pcvm-5jqc matched loosely. A port has one setting for all its protocols:
// etcd GHSA-3wh4-j44w-pg92 checked certificates in HTTP and not in gRPC.
func TestDocumentedConnections(t *testing.T) {
	t.Parallel()
	c := newConnections(t)
	for _, s := range c.settings { // a call without a token has no effect then
		if !s.bind {
			turnTokensOn(t, c.callers, s)
		}
	}
	var calls atomic.Int64
	t.Run("calls", func(t *testing.T) {
		for _, who := range c.callers {
			t.Run(who.name, func(t *testing.T) {
				t.Parallel()
				for _, s := range c.settings {
					if who.named && !s.bind && !storetest.Long() {
						continue // names are for bind ports
					}
					calls.Add(int64(who.methods(t, s) + who.routes(t, s) + 1))
					who.raft(t, s)
				}
			})
		}
	})
	t.Logf("%d calls", calls.Load())
	if err := docs.Generated("..", "docs/reference/permissions.md", "connections", c.table(), *rpc.UpdateDocuments); err != nil {
		t.Error(err)
	}
}

func turnTokensOn(t *testing.T, callers []caller, s setting) {
	t.Helper()
	for _, who := range callers {
		if !who.letIn(s) {
			continue
		}
		_, id, hash := registrypb.MakeToken()
		if _, err := registrypb.NewTokensClient(who.over(t, s.addr)).Init(t.Context(), &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "first"}}); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		return
	}
}

func (c *connections) table() string {
	var out strings.Builder
	out.WriteString("| caller |")
	for _, s := range c.settings {
		fmt.Fprintf(&out, " %s |", s.name)
	}
	out.WriteString("\n|---|" + strings.Repeat("---|", len(c.settings)) + "\n")
	for _, who := range c.callers {
		fmt.Fprintf(&out, "| %s |", who.name)
		for _, s := range c.settings {
			cell := " no |"
			if who.letIn(s) {
				cell = " yes |"
			}
			out.WriteString(cell)
		}
		out.WriteByte('\n')
	}
	return out.String()
}
