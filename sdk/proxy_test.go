package sdk

import (
	"net"
	"net/http"
	"testing"
)

// beyondLoopback is the port of a loopback address under an address that is this
// machine for a client, and that no rule of proxies exempts.
func beyondLoopback(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	addr = net.JoinHostPort("0.0.0.0", port)
	req, _ := http.NewRequest(http.MethodGet, "http://"+addr, nil)
	if p, err := http.ProxyFromEnvironment(req); p == nil {
		t.Fatalf("no proxy for %s, %v: the test shows nothing", addr, err)
	}
	return addr
}

// Nodes are reached directly, also where the environment names a proxy: here one
// that refuses connections.
func TestNodesAreReachedWithoutAProxy(t *testing.T) {
	cl := newFakeWatched(t, 1)
	cl.write("g", memberIDs(1)...)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- cl.nodes[0].srv.Serve(lis) }()
	t.Cleanup(func() { cl.nodes[0].srv.Stop(); <-served })
	node := beyondLoopback(t, lis.Addr().String())
	for name, opt := range map[string]Option{"default dialer": fastProgress, "nil dialer": WithDialer(nil)} {
		c, err := Dial(node, fastProgress, opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
