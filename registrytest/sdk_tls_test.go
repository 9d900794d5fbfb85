package registrytest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/sdk"
)

func dialSDK(t *testing.T, target string, opts ...sdk.Option) *sdk.Client {
	t.Helper()
	c, err := sdk.Dial(target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// shortly bounds a call that must fail.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// The client's kinds of calls work over TLS, with a certificate of its own, and through
// a dialer that finds the node elsewhere: the certificate is for the name in the
// address.
func TestSDKSpeaksTLS(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	server := ca.Issue("server", certs.Request{Server: true, Hosts: []string{"registry.example"}})
	n := startTLS(t, server, func(c *registry.Config) { c.ClientCA, c.Advertise = ca.Path, "registry.example:0" })
	own := ca.Client("client")
	address := n.Addr()
	host, port, err := net.SplitHostPort(address)
	if err != nil || host != "registry.example" {
		t.Fatalf("the node advertises %s", address)
	}
	dialer := func(ctx context.Context, addr string) (net.Conn, error) {
		if addr != address {
			t.Errorf("dialled %s", addr)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	}
	files := dialSDK(t, address, sdk.WithTLSFiles(own.CA, own.Cert, own.Key), sdk.WithDialer(dialer))
	set := source(t, own)
	config := dialSDK(t, address, sdk.WithDialer(dialer), sdk.WithTLS(set.Client("")))
	for name, c := range map[string]*sdk.Client{"files": files, "configuration": config} {
		reg, err := c.Register(t.Context(), sdk.Service{Group: "g", ID: name, Addr: "127.0.0.1:80"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ring, err := c.Ring(t.Context(), "g")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m, err := ring.Match("k"); err != nil || m.ID != name {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		if err := reg.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A failed handshake is told in words, and by the sentinel of a node that cannot be
// reached. A client takes files that have changed since.
func TestSDKReadsFilesAgain(t *testing.T) {
	t.Parallel()
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	n := startTLS(t, ca.Server("server"), nil)
	plain := dialSDK(t, n.Addr())
	if _, err := plain.Status(shortly(t), ""); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "the node speaks TLS") {
		t.Errorf("without TLS: %v", err)
	}
	path := other.Path
	c := dialSDK(t, n.Addr(), sdk.WithTLSFiles(path, "", ""))
	if _, err := c.Status(shortly(t), ""); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), n.Addr()+": the certificate is of an unknown authority") {
		t.Errorf("an unknown authority: %v", err)
	}
	replaceFile(t, path, ca.Path)
	if _, err := c.Status(t.Context(), ""); err != nil {
		t.Errorf("the files were not read again: %v", err)
	}
}

func TestSDKRefusesUnusableFiles(t *testing.T) {
	ca := certstest.NewCA(t)
	own := ca.Client("client")
	for name, f := range map[string]certs.Files{
		"certificate alone": {Cert: own.Cert}, "no such file": {CA: "/none"}, "no certificate": {CA: own.Key},
	} {
		_, err := sdk.Dial("127.0.0.1:1", sdk.WithTLSFiles(f.CA, f.Cert, f.Key))
		if !errors.Is(err, sdk.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := dialSDK(t, "127.0.0.1:1", sdk.WithTLSFiles("/none", "", ""), sdk.WithTLS(&tls.Config{}))
	_ = c // the last option counts
}
