package peertls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/rpc/muxcreds"
	"github.com/werbenhu/registry/store/portmux"
)

// bySecret is the configuration of a node with a secret file.
func bySecret(t *testing.T, id string, secrets ...string) Config {
	t.Helper()
	return Config{Cluster: "prod", ID: id, SecretFile: writeSecrets(t, "", secrets...)}
}

// byCA is the configuration of a node with certificate files.
func byCA(ca *certstest.CA, id string) Config {
	return Config{Cluster: "prod", ID: id, Files: ca.Issue(id, certs.Request{URI: certs.NodeURI("prod", id)})}
}

func TestNodesConnect(t *testing.T) {
	ca := certstest.NewCA(t)
	for name, of := range map[string]func(id string) Config{
		"secret": func(id string) Config { return bySecret(t, id, oldSecret) },
		"files":  func(id string) Config { return byCA(ca, id) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := node(t, of("n1")), node(t, of("n2"))
			c, err := a.dial(t, b)
			if err != nil {
				t.Fatal(err)
			}
			if s := c.ConnectionState(); s.Version != tls.VersionTLS13 || s.NegotiatedProtocol != "registry-raft" {
				t.Errorf("TLS %x, protocol %q", s.Version, s.NegotiatedProtocol)
			}
		})
	}
}

// Both ends of a gRPC connection know the other's id.
func TestCheckOfGRPC(t *testing.T) {
	a, b := node(t, bySecret(t, "n1", oldSecret)), node(t, bySecret(t, "n2", oldSecret))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := portmux.New(b.Listen(ln), 10)
	mux.TLS(b.Server())
	callers := make(chan *peer.Peer, 1)
	server := grpc.NewServer(grpc.Creds(muxcreds.Finished{}), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			p, _ := peer.FromContext(ctx)
			callers <- p
			return next(ctx, req)
		}))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	route, served := mux.Route(portmux.Protocol{ALPN: protocolGRPC}), make(chan error, 2)
	go func() { served <- server.Serve(route) }()
	go func() { served <- mux.Serve() }()
	t.Cleanup(func() { server.Stop(); _ = mux.Close(); <-served; <-served })
	conn, err := grpc.NewClient("passthrough:///"+ln.Addr().String(), grpc.WithTransportCredentials(a.Credentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	var callee peer.Peer
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&callee)); err != nil {
		t.Fatal(err)
	}
	caller := <-callers
	if err := errors.Join(a.Check(&callee, "n2"), b.Check(caller, "n1")); err != nil {
		t.Error(err)
	}
	if err := b.Check(caller, "n3"); err == nil {
		t.Error("n1 may be n3")
	}
	b.wantRefused(t, WrongName)
	if err := b.Check(&peer.Peer{Addr: caller.Addr}, "n1"); err == nil {
		t.Error("a caller without a certificate may be n1")
	}
}

// Who is no node of the cluster is refused, with a line in the log and a count.
func TestUnknownPeersAreRefused(t *testing.T) {
	ca, otherCA := certstest.NewCA(t), certstest.NewCA(t)
	secret := func(t *testing.T) *end { return node(t, bySecret(t, "n1", oldSecret)) }
	files := func(t *testing.T) *end { return node(t, byCA(ca, "n1")) }
	withFiles := func(f certs.Files) *tls.Config {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"registry-raft"}, Certificates: []tls.Certificate{pair}}
	}
	expired := ca.Issue("late", certs.Request{URI: certs.NodeURI("prod", "late"), Lifetime: -time.Minute})
	for _, tc := range []struct {
		name   string
		server func(*testing.T) *end
		call   func(t *testing.T, raw net.Conn) error
		want   Reason
	}{
		{"without TLS", secret, func(_ *testing.T, raw net.Conn) error {
			_, err := io.WriteString(raw, "R0123456789")
			return err
		}, Plain},
		{"without a certificate", secret, handshakeOf(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"registry-raft"}}), NoCertificate},
		{"without a certificate, files", files, handshakeOf(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"registry-raft"}}), NoCertificate},
		{"TLS 1.2", secret, handshakeOf(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}), Handshake},
		{"a client's certificate of another authority", secret, handshakeOf(withFiles(otherCA.Client("web"))), WrongName},
		{"a client's certificate of the same authority", files, handshakeOf(withFiles(ca.Client("web"))), WrongName},
		{"a server's certificate of the same authority", files, handshakeOf(withFiles(ca.Server("node.example"))), WrongName},
		{"a node's certificate of another authority", files, handshakeOf(withFiles(byCA(otherCA, "n2").Files)), Untrusted},
		{"a node's certificate where a secret counts", secret, handshakeOf(withFiles(byCA(ca, "n2").Files)), Untrusted},
		{"a node of another cluster", files, handshakeOf(withFiles(ca.Issue("x", certs.Request{URI: certs.NodeURI("test", "n2")}))), WrongName},
		{"an expired certificate", files, handshakeOf(withFiles(expired)), Expired},
		{"the secret and another cluster's name", secret, clientOf(Config{Cluster: "test", ID: "n2", SecretFile: writeSecrets(t, "", oldSecret)}), WrongName},
		{"another secret", secret, clientOf(bySecret(t, "n2", newSecret)), Untrusted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := tc.server(t)
			raw, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = raw.Close() }()
			if err := raw.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := tc.call(t, raw); err == nil {
				if _, err := io.ReadAll(raw); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the connection is open: %v", err)
				}
			}
			e.wantRefused(t, tc.want)
			if n := e.kept(); n != 0 {
				t.Errorf("%d connections are kept", n)
			}
		})
	}
}

// handshakeOf sends a byte after the handshake, and returns why it has no answer.
func handshakeOf(config *tls.Config) func(*testing.T, net.Conn) error {
	return func(t *testing.T, raw net.Conn) error {
		c := tls.Client(raw, config)
		if err := errors.Join(c.Handshake(), alive(c)); err != nil {
			return err
		}
		t.Error("it was answered")
		return nil
	}
}

// clientOf does the same as a node that does not judge the other end.
func clientOf(cfg Config) func(*testing.T, net.Conn) error {
	return func(t *testing.T, raw net.Conn) error {
		e, err := open(t, cfg)
		if err != nil {
			t.Fatal(err)
		}
		own := e.trust.Load().own
		return handshakeOf(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"registry-raft"}, Certificates: []tls.Certificate{own}})(t, raw)
	}
}

// A node refuses the other end that it dials, too.
func TestDiallingAStranger(t *testing.T) {
	a, b := node(t, bySecret(t, "n1", oldSecret)), node(t, bySecret(t, "n2", newSecret))
	if _, err := a.dial(t, b); err == nil {
		t.Error("accepted")
	}
	a.wantRefused(t, Untrusted)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{a.trust.Load().own}}).Handshake()
		_ = c.Close()
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Client(t.Context(), raw, "registry-raft"); err == nil {
		t.Error("accepted without a protocol")
	}
	if n := a.kept(); n != 0 {
		t.Errorf("%d connections are kept", n)
	}
}

// Three nodes get a new secret, one after the other in each of three steps. At any time
// all nodes connect to all, and a connection stays while its secrets count.
func TestSecretsRoll(t *testing.T) {
	paths, nodes := make([]string, 3), make([]*end, 3)
	for i, id := range []string{"n1", "n2", "n3"} {
		cfg := bySecret(t, id, oldSecret)
		paths[i], nodes[i] = cfg.SecretFile, node(t, cfg)
	}
	var open []*tls.Conn
	connect := func(at string) {
		t.Helper()
		for _, from := range nodes {
			for _, to := range nodes {
				c, err := from.dial(t, to)
				if err != nil {
					t.Fatalf("%s: %s to %s: %v\n%s\n%s", at, from.cfg.ID, to.cfg.ID, err, from.log, to.log)
				}
				open = append(open, c)
			}
		}
	}
	connect("before")
	for _, secrets := range [][]string{{oldSecret, newSecret}, {newSecret, oldSecret}, {newSecret}} {
		for i, n := range nodes {
			writeSecrets(t, paths[i], secrets...)
			n.Reload()
			connect(fmt.Sprintf("%d secrets at %s", len(secrets), n.cfg.ID))
			for _, c := range open {
				if err := alive(c); err != nil && len(secrets) == 2 {
					t.Fatalf("%d secrets at %s: a connection ended: %v", len(secrets), n.cfg.ID, err)
				}
			}
		}
	}
	for _, n := range nodes {
		if len(n.refused) > 0 {
			t.Errorf("a node refused another: %s", n.log)
		}
	}
}

// When a secret is gone, its connections are closed at once, those of the other stay.
func TestConnectionsOfAGoneSecret(t *testing.T) {
	cfg := bySecret(t, "n1", newSecret, oldSecret)
	a := node(t, cfg)
	late, done := node(t, bySecret(t, "n2", oldSecret, newSecret)), node(t, bySecret(t, "n3", newSecret))
	in, err := late.dial(t, a)
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.dial(t, late)
	if err != nil {
		t.Fatal(err)
	}
	stays, err := done.dial(t, a)
	if err != nil {
		t.Fatal(err)
	}
	writeSecrets(t, cfg.SecretFile, newSecret)
	a.Reload()
	for name, c := range map[string]*tls.Conn{"in": in, "out": out} {
		if alive(c) == nil {
			t.Errorf("the connection %s of the secret that is gone is open", name)
		}
	}
	if err := alive(stays); err != nil {
		t.Errorf("the connection of the other secret: %v", err)
	}
	if _, err := late.dial(t, a); err == nil {
		t.Error("a new connection by the secret that is gone is accepted")
	}
}

// Files that cannot be used change nothing.
func TestUnusableFiles(t *testing.T) {
	cfg := bySecret(t, "n1", oldSecret)
	a, b := node(t, cfg), node(t, bySecret(t, "n2", oldSecret))
	c, err := b.dial(t, a)
	if err != nil {
		t.Fatal(err)
	}
	for _, breakIt := range []func() error{
		func() error { return os.WriteFile(cfg.SecretFile, []byte("not a secret\n"), 0o600) },
		func() error { return os.WriteFile(cfg.SecretFile, nil, 0o600) },
		func() error { return os.Remove(cfg.SecretFile) },
	} {
		if err := breakIt(); err != nil {
			t.Fatal(err)
		}
		a.Reload()
		a.Reload() // the same is told once
		wantUnusable(t, a)
		if err := alive(c); err != nil {
			t.Errorf("an open connection: %v", err)
		}
		if _, err := b.dial(t, a); err != nil {
			t.Errorf("a new connection: %v", err)
		}
	}
	writeSecrets(t, cfg.SecretFile, newSecret)
	a.Reload()
	if alive(c) == nil {
		t.Error("the next usable file was not read")
	}
}

func wantUnusable(t *testing.T, e *end) {
	t.Helper()
	if len(e.unusable) != 1 || strings.Count(e.log.String(), "level=ERROR") == 0 {
		t.Errorf("told %d times\n%s", len(e.unusable), e.log)
	}
	for len(e.unusable) > 0 {
		<-e.unusable
	}
}

// Certificate files are checked as the other nodes would.
func TestCertificateFilesReload(t *testing.T) {
	ca, otherCA := certstest.NewCA(t), certstest.NewCA(t)
	cfg := byCA(ca, "n1")
	a, b := node(t, cfg), node(t, byCA(ca, "n2"))
	replace := func(f certs.Files) {
		t.Helper()
		for from, to := range map[string]string{f.Cert: cfg.Files.Cert, f.Key: cfg.Files.Key} {
			data, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			certstest.Write(t, to, data)
		}
		a.Reload()
	}
	serial := func() string { return a.trust.Load().own.Leaf.SerialNumber.String() }
	before := serial()
	for _, f := range []certs.Files{
		ca.Issue("other", certs.Request{URI: certs.NodeURI("prod", "n3")}),
		ca.Issue("elsewhere", certs.Request{URI: certs.NodeURI("test", "n1")}),
		ca.Issue("late", certs.Request{URI: certs.NodeURI("prod", "n1"), Lifetime: -time.Minute}),
		ca.Client("web"),
		otherCA.Issue("foreign", certs.Request{URI: certs.NodeURI("prod", "n1")}),
	} {
		replace(f)
		wantUnusable(t, a)
		if serial() != before {
			t.Errorf("%s is in use", f.Cert)
		}
	}
	replace(ca.Issue("renewed", certs.Request{URI: certs.NodeURI("prod", "n1")}))
	if serial() == before || len(a.unusable) > 0 {
		t.Errorf("a renewed certificate is not in use\n%s", a.log)
	}
	if _, err := b.dial(t, a); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesCertificateFiles(t *testing.T) {
	ca := certstest.NewCA(t)
	for name, files := range map[string]certs.Files{
		"of another node": byCA(ca, "n2").Files,
		"of a client":     ca.Client("web"),
		"missing":         {Cert: filepath.Join(t.TempDir(), "x"), Key: filepath.Join(t.TempDir(), "y"), CA: ca.Path},
	} {
		if _, err := open(t, Config{Cluster: "prod", ID: "n1", Files: files}); err == nil || !strings.Contains(err.Error(), "-peer-cert") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Follow reads a file after it has changed.
func TestFollow(t *testing.T) {
	cfg := bySecret(t, "n1", oldSecret)
	a, b := node(t, cfg), node(t, bySecret(t, "n2", oldSecret))
	c, err := b.dial(t, a)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() { defer close(followed); a.Follow(ctx) }()
	writeSecrets(t, cfg.SecretFile, newSecret)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	cancel()
	<-followed
}

// A handshake that is verified while the secrets change is verified again.
func TestReloadDuringVerification(t *testing.T) {
	a := node(t, bySecret(t, "n1", oldSecret))
	before := a.trust.Load()
	next, err := bySecrets([][]byte{make([]byte, MinSecret)}, "prod", "n1")
	if err != nil {
		t.Fatal(err)
	}
	a.replace(next)
	c := &conn{of: a.Identity}
	if done, _ := c.keep(before, []*x509.Certificate{before.own.Leaf}); done || a.kept() != 0 {
		t.Error("kept by secrets that are gone")
	}
}

// Refusals do not fill the log, and each is counted.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	e, err := open(t, bySecret(t, "n1", oldSecret))
	if err != nil {
		t.Fatal(err)
	}
	e.Identity.refused.add("refused", &net.TCPAddr{}, io.EOF) // no line, and no other line's place
	<-e.refused
	e.Identity.refused.add("refused", &net.TCPAddr{}, os.ErrDeadlineExceeded)
	if why := <-e.refused; why != Handshake || !strings.Contains(e.log.String(), "timeout") {
		t.Errorf("reason %q, log:\n%s", why, e.log)
	}
	for range 50 {
		e.Identity.refused.add("refused", &net.TCPAddr{}, refusal(Untrusted, "no"))
	}
	if lines, counted := strings.Count(e.log.String(), "reason=authority"), len(e.refused); lines != 1 || counted != 50 {
		t.Errorf("%d lines, %d counted", lines, counted)
	}
	if dropped, ok := e.Identity.refused.pass(Untrusted, time.Now().Add(quiet)); !ok || dropped != 49 {
		t.Errorf("the next line: %t, %d repeated", ok, dropped)
	}
}
