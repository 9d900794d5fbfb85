package rpc

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/peerpb"
)

type helloServer struct {
	peerpb.UnimplementedPeerServer
}

func (helloServer) Hello(context.Context, *peerpb.HelloRequest) (*peerpb.HelloResponse, error) {
	return &peerpb.HelloResponse{Id: "n2"}, nil
}

// A node dials the others without the proxy of the environment, here one that refuses
// connections, and an address that is not exempt from it.
func TestPeersAreReachedWithoutAProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("NO_PROXY", "none.example")
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	peerpb.RegisterPeerServer(srv, helloServer{})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	t.Cleanup(func() { srv.Stop(); <-served })
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	addr := net.JoinHostPort("0.0.0.0", port) // which is this machine for a client, and no loopback address for the rule
	if p, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: addr}}); p == nil {
		t.Fatalf("no proxy for %s, %v: the test shows nothing", addr, err)
	}
	peers := NewPeers(nil)
	t.Cleanup(func() { _ = peers.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if h, err := peers.Hello(ctx, addr); err != nil || h.ID != "n2" {
		t.Errorf("got %+v, %v", h, err)
	}
}
