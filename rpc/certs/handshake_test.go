package certs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
)

// node accepts connections and serves each by f until the test ends.
func node(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

// connect makes a client's handshake and reads a byte. It returns the error, and what
// the callback was told last.
func connect(t *testing.T, addr string, config func() *tls.Config) (err, told error) {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	creds := certs.NewCredentials(config, func(at string, err error) {
		if at != addr {
			t.Errorf("told of %s, want %s", at, addr)
		}
		told = err
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, _, err := creds.ClientHandshake(ctx, addr, raw)
	if err == nil {
		_, _ = io.WriteString(conn, "PRI *")
		_, err = io.ReadFull(conn, make([]byte, 4))
	}
	return err, told
}

// speak answers a connection over TLS.
func speak(server *certs.Server) func(net.Conn) {
	return func(c net.Conn) {
		conn := tls.Server(c, server.Config())
		if conn.Handshake() == nil {
			_, _ = io.WriteString(conn, "good")
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

// What does not fit is said in words, by kind, to the caller and to the callback.
func TestHandshakesSayWhatIsWrong(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	server := func(files certs.Files, auth tls.ClientAuthType) func(net.Conn) {
		return speak(certs.NewServer(open(t, files), certs.ServerOptions{ClientAuth: auth, Protocols: []string{"h2"}}))
	}
	good, client := ca.Server("good"), ca.Client("client")
	anyone, required := server(good, tls.NoClientCert), server(good, tls.RequireAndVerifyClientCert)
	plain := func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	}
	alert := func(c net.Conn) {
		_, _ = io.WriteString(c, "\x15\x03\x01\x00\x02\x02\x46")
		_, _ = io.Copy(io.Discard, c)
	}
	trusts := func(files certs.Files) func() *tls.Config {
		s := open(t, files)
		return func() *tls.Config { return s.Client("") }
	}
	noCert := trusts(certs.Files{CA: ca.Path})
	for name, c := range map[string]struct {
		node   func(net.Conn)
		config func() *tls.Config
		kind   error
		says   string
	}{
		"TLS":                        {anyone, noCert, nil, ""},
		"client certificate":         {required, trusts(client), nil, ""},
		"plain client, plain node":   {plain, nil, nil, ""},
		"plain client, TLS node":     {alert, nil, certs.ErrSpeaksTLS, "speaks TLS"},
		"TLS client, plain node":     {plain, noCert, certs.ErrNotTLS, "does not speak TLS"},
		"TLS client, node that ends": {func(net.Conn) {}, noCert, certs.ErrNotTLS, "may not speak TLS"},
		"unknown authority":          {anyone, trusts(certs.Files{CA: other.Path}), certs.ErrAuthority, "test CA"},
		"other name":                 {server(ca.Issue("other", certs.Request{Server: true, Hosts: []string{"a.example", "10.1.2.3"}}), tls.NoClientCert), noCert, certs.ErrName, "for a.example, 10.1.2.3, not for 127.0.0.1"},
		"no name":                    {server(ca.Issue("none", certs.Request{Server: true}), tls.NoClientCert), noCert, certs.ErrName, ""},
		"expired":                    {server(ca.Issue("expired", certs.Request{Server: true, Hosts: []string{"127.0.0.1"}, Lifetime: -time.Minute}), tls.NoClientCert), noCert, certs.ErrExpired, "expired at 20"},
		"no client certificate":      {required, noCert, certs.ErrRefused, "certificate required"},
		"other client certificate":   {required, trusts(certs.Files{CA: ca.Path, Cert: other.Client("x").Cert, Key: other.Client("x").Key}), certs.ErrRefused, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err, told := connect(t, node(t, c.node), c.config)
			if c.kind == nil {
				if err != nil || told != nil {
					t.Errorf("got %v, told %v", err, told)
				}
				return
			}
			if !errors.Is(err, c.kind) || !errors.Is(told, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, told %v, want %v and %q", err, told, c.kind, c.says)
			}
		})
	}
}

// The name that is checked is the configured one, or else the address's.
func TestServerNameReplacesTheAddress(t *testing.T) {
	ca := certstest.NewCA(t)
	files := ca.Issue("named", certs.Request{Server: true, Hosts: []string{"registry.example"}})
	addr := node(t, speak(certs.NewServer(open(t, files), certs.ServerOptions{Protocols: []string{"h2"}})))
	s := open(t, certs.Files{CA: ca.Path})
	if err, _ := connect(t, addr, func() *tls.Config { return s.Client("registry.example") }); err != nil {
		t.Error(err)
	}
	if err, _ := connect(t, addr, func() *tls.Config { return s.Client("") }); !errors.Is(err, certs.ErrName) {
		t.Error(err)
	}
}

func TestServersSpeakTLS13UnlessTold(t *testing.T) {
	ca := certstest.NewCA(t)
	s := open(t, ca.Server("a"))
	client := func() *tls.Config {
		c := s.Client("")
		c.MaxVersion = tls.VersionTLS12
		return c
	}
	for _, accepts := range []bool{false, true} {
		addr := node(t, speak(certs.NewServer(s, certs.ServerOptions{TLS12: accepts, Protocols: []string{"h2"}})))
		err, _ := connect(t, addr, client)
		if accepts && err != nil || !accepts && !errors.Is(err, certs.ErrRefused) {
			t.Errorf("TLS 1.2 accepted %v: %v", accepts, err)
		}
	}
}

// The certificates are for their ends only, and none outlives its authority.
func TestIssuedCertificates(t *testing.T) {
	ca := certstest.NewCA(t)
	server := open(t, ca.Server("server"))
	client := open(t, ca.Client("client"))
	addr := node(t, speak(certs.NewServer(server, certs.ServerOptions{ClientAuth: tls.RequireAndVerifyClientCert, Protocols: []string{"h2"}})))
	if err, _ := connect(t, addr, func() *tls.Config { return server.Client("") }); !errors.Is(err, certs.ErrRefused) {
		t.Errorf("a server's certificate is a client's: %v", err)
	}
	addr = node(t, speak(certs.NewServer(client, certs.ServerOptions{Protocols: []string{"h2"}})))
	if err, _ := connect(t, addr, func() *tls.Config { return client.Client("") }); err == nil {
		t.Error("a client's certificate is a node's")
	}
	leaf := open(t, ca.Issue("node", certs.Request{URI: certs.NodeURI("prod", "n 1"), Lifetime: 100 * 365 * 24 * time.Hour})).Set()
	cert := leaf.Certificate.Leaf
	if want := (&url.URL{Scheme: "registry", Host: "prod", Path: "/node/n 1"}).String(); len(cert.URIs) != 1 || cert.URIs[0].String() != want || len(cert.ExtKeyUsage) != 2 {
		t.Errorf("%v, usage %v", cert.URIs, cert.ExtKeyUsage)
	}
	if c, a := leaf.NotAfter(); c.After(a) {
		t.Errorf("valid until %v, its authority until %v", c, a)
	}
	pair, err := certs.NewAuthority("x", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certs.ReadAuthority(certs.Pair{Cert: pair.Cert}); err == nil {
		t.Error("an authority without a key")
	}
}
