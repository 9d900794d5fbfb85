package sdk

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// BenchmarkClusterInAnswers is what it costs that each call and each answer names
// its cluster: a Match over loopback with and without, in turn, so that both meet
// the same load. It reports the medians, and the first by the second as ratio.
// The server's half is that of rpc/identity.go.
func BenchmarkClusterInAnswers(b *testing.B) {
	named, bare := matcher(b, true), matcher(b, false)
	req := &registrypb.MatchRequest{Group: "web", Key: []byte("user-1")}
	with, without := make([]time.Duration, 0, 1<<16), make([]time.Duration, 0, 1<<16)
	for b.Loop() {
		for _, m := range []struct {
			client registrypb.RegistryClient
			took   *[]time.Duration
		}{{named, &with}, {bare, &without}} {
			began := time.Now()
			if _, err := m.client.Match(b.Context(), req); err != nil {
				b.Fatal(err)
			}
			*m.took = append(*m.took, time.Since(began))
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	w, wo := float64(with[len(with)/2]), float64(without[len(without)/2])
	b.ReportMetric(0, "ns/op") // of two calls
	b.ReportMetric(w, "ns/named")
	b.ReportMetric(wo, "ns/bare")
	b.ReportMetric(w/wo, "ratio")
}

// oneMatch answers each Match with the same member.
type oneMatch struct {
	registrypb.UnimplementedRegistryServer
	answer *registrypb.MatchResponse
}

func (o *oneMatch) Match(context.Context, *registrypb.MatchRequest) (*registrypb.MatchResponse, error) {
	return o.answer, nil
}

func matcher(b *testing.B, named bool) registrypb.RegistryClient {
	b.Helper()
	own := registrypb.ClusterRef{Name: "registry", ID: "5f1c0c7c6a0bd1a2c3d4e5f60718293a"}
	encoded := own.Encode()
	header := metadata.Pairs(registrypb.ClusterHeader, encoded)
	var serve []grpc.ServerOption
	dial := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy()}
	if named {
		serve = append(serve, grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := grpc.SetHeader(ctx, header); err != nil {
				return nil, err
			}
			for _, v := range metadata.ValueFromIncomingContext(ctx, registrypb.ClusterHeader) {
				if v != encoded {
					return nil, wrongCluster("not this one")
				}
			}
			return handler(ctx, req)
		}))
		i := new(identity)
		if err := i.configure(newConfig(nil)); err != nil {
			b.Fatal(err)
		}
		dial = append(dial, grpc.WithChainUnaryInterceptor(i.unary))
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := grpc.NewServer(serve...)
	registrypb.RegisterRegistryServer(srv, &oneMatch{answer: &registrypb.MatchResponse{
		Members: []*registrypb.Member{{Id: "web-1", Addr: "10.0.0.1:8080", Weight: 1}},
		Receipt: &registrypb.Receipt{Index: 1000, Revision: 900, Fingerprint: 1 << 60, Node: "n1", ClusterId: own.ID},
	}})
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(lis) }()
	b.Cleanup(func() { srv.Stop(); <-served })
	conn, err := grpc.NewClient(lis.Addr().String(), dial...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	client := registrypb.NewRegistryClient(conn)
	if _, err := client.Match(b.Context(), &registrypb.MatchRequest{Key: []byte{}}); err != nil { // connects, and decides the cluster
		b.Fatal(err)
	}
	return client
}
