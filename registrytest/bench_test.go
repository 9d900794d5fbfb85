package registrytest_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// benchCluster starts three nodes in this process and returns a client of each.
func benchCluster(b *testing.B) []registrypb.RegistryClient {
	first := startNode(b, "n1", nil)
	nodes := []*registry.Node{first}
	for i := 2; i <= 3; i++ {
		nodes = append(nodes, startNode(b, fmt.Sprintf("n%d", i), func(c *registry.Config) {
			c.Registries = []string{first.BindAddr()}
		}))
	}
	waitReady(b, nodes...)
	var clients []registrypb.RegistryClient
	for _, n := range nodes {
		conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		clients = append(clients, registrypb.NewRegistryClient(conn))
	}
	return clients
}

func benchRequest(n int64) *registrypb.RegisterRequest {
	return &registrypb.RegisterRequest{
		Group: fmt.Sprintf("group-%d", n%100), Id: fmt.Sprintf("member-%08d", n), Addr: "10.0.0.1:8080",
		Ttl: durationpb.New(time.Hour), Instance: []byte("instance-of-16-b"),
	}
}

// BenchmarkRegister: new members over all three nodes, 64 callers for each processor.
func BenchmarkRegister(b *testing.B) {
	clients := benchCluster(b)
	var next, worker atomic.Int64
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		client := clients[int(worker.Add(1))%len(clients)]
		for pb.Next() {
			if _, err := client.Register(b.Context(), benchRequest(next.Add(1))); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkMatch: one key a call on one node, 64 callers for each processor.
func BenchmarkMatch(b *testing.B) {
	client := benchCluster(b)[0]
	for n := range int64(100) {
		req := benchRequest(n)
		req.Group = "group"
		if _, err := client.Register(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		req := &registrypb.MatchRequest{Group: "group", Key: []byte("user-id-1")}
		for pb.Next() {
			if _, err := client.Match(b.Context(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkHeartbeat: one lease a call, over all three nodes.
func BenchmarkHeartbeat(b *testing.B) {
	clients := benchCluster(b)
	r, err := clients[0].Register(b.Context(), benchRequest(1))
	if err != nil {
		b.Fatal(err)
	}
	var worker atomic.Int64
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		client := clients[int(worker.Add(1))%len(clients)]
		req := &registrypb.HeartbeatRequest{LeaseIds: []uint64{r.LeaseId}}
		for pb.Next() {
			if _, err := client.Heartbeat(b.Context(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
