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
	node := beyondLoopback(t, cl.nodes[0].addr)
	for name, opt := range map[string]Option{"default dialer": fastProgress, "nil dialer": WithDialer(nil)} {
		if _, err := cl.client(node, fastProgress, opt).Match(testContext(t), "g", "k"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
