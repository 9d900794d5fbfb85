package registrytest_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// BenchmarkSecurity compares three nodes with a secret, TLS and tokens with three that
// have none of them, on connections that are open. Rounds of both alternate, and the
// ratio is that of the medians: the secured cluster's calls a second over the other's,
// for a watch the other's latency over the secured one's. One is no cost.
//
//	go test -run '^$' -bench Security -benchtime 1x ./registrytest
func BenchmarkSecurity(b *testing.B) {
	rounds, each := 9, 2*time.Second
	if testing.Short() {
		rounds, each = 1, 50*time.Millisecond
	}
	plain, secured := newSide(b, false), newSide(b, true)
	for _, kind := range []struct {
		name, unit string
		measure    func(*side, *testing.B, time.Duration) float64
		less       bool // less is better
	}{
		{"Register", "calls/s", (*side).registers, false},
		{"Heartbeat", "calls/s", (*side).heartbeats, false},
		{"Match", "calls/s", (*side).matches, false},
		{"Watch", "µs", (*side).watches, true},
	} {
		b.Run(kind.name, func(b *testing.B) {
			for b.Loop() {
				var with, without []float64
				for range rounds {
					without = append(without, kind.measure(plain, b, each))
					with = append(with, kind.measure(secured, b, each))
				}
				w, o := middle(with), middle(without)
				ratio := w / o
				if kind.less {
					ratio = o / w
				}
				b.ReportMetric(o, "plain-"+kind.unit)
				b.ReportMetric(w, "secured-"+kind.unit)
				b.ReportMetric(ratio, "ratio")
			}
		})
	}
}

func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// side is one of the clusters, with a connection to each node.
type side struct {
	apis  []registrypb.RegistryClient
	lease uint64
	next  atomic.Int64 // of the members
}

// bearerToken sends a token with every call.
type bearerToken string

func (t bearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{registrypb.AuthorizationHeader: "Bearer " + string(t)}, nil
}

func (bearerToken) RequireTransportSecurity() bool { return true }

func newSide(b *testing.B, secure bool) *side {
	configure, options := func(*registry.Config) {}, []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	text, id, hash := registrypb.MakeToken()
	if secure {
		files, secret := certstest.NewCA(b).Server("node"), secretFile(b, "", peertls.NewSecret())
		configure = func(c *registry.Config) { c.SecretFile, c.Cert, c.Key = secret, files.Cert, files.Key }
		creds, err := credentials.NewClientTLSFromFile(files.CA, "")
		if err != nil {
			b.Fatal(err)
		}
		options = []grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithPerRPCCredentials(bearerToken(text))}
	}
	var nodes []*registry.Node
	for i := 1; i <= 3; i++ {
		nodes = append(nodes, startNode(b, fmt.Sprintf("n%d", i), func(c *registry.Config) {
			configure(c)
			c.ElectionTimeout = 10 * time.Second // a busy machine changes no leader
			if i > 1 {
				c.Registries = []string{nodes[0].BindAddr()}
			}
		}))
	}
	waitReady(b, nodes...)
	s := &side{}
	var conns []*grpc.ClientConn
	for _, n := range nodes {
		conn, err := grpc.NewClient("passthrough:///"+n.Addr(), options...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		conns, s.apis = append(conns, conn), append(s.apis, registrypb.NewRegistryClient(conn))
	}
	if secure {
		if _, err := registrypb.NewTokensClient(conns[0]).Init(b.Context(), &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "first"}}); err != nil {
			b.Fatal(err)
		}
	}
	s.fill(b)
	return s
}

// fill registers the members that are asked for, at every node's state.
func (s *side) fill(b *testing.B) {
	var index uint64
	for n := range int64(100) {
		req := benchRequest(n)
		req.Group = "group"
		r, err := s.apis[0].Register(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		s.lease, index = r.LeaseId, r.Index
	}
	for _, api := range s.apis {
		if _, err := api.Index(b.Context(), &registrypb.IndexRequest{Read: &registrypb.ReadOptions{MinIndex: index}}); err != nil {
			b.Fatal(err)
		}
	}
}

// rate is how many calls a second 64 callers make, over all nodes.
func (s *side) rate(b *testing.B, d time.Duration, call func(registrypb.RegistryClient) error) float64 {
	var calls atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range 64 {
		all.Go(func() {
			for time.Since(began) < d {
				if err := call(s.apis[i%len(s.apis)]); err != nil {
					b.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	all.Wait()
	return float64(calls.Load()) / time.Since(began).Seconds()
}

func (s *side) registers(b *testing.B, d time.Duration) float64 {
	return s.rate(b, d, func(api registrypb.RegistryClient) error {
		_, err := api.Register(b.Context(), benchRequest(s.next.Add(1)))
		return err
	})
}

func (s *side) heartbeats(b *testing.B, d time.Duration) float64 {
	req := &registrypb.HeartbeatRequest{LeaseIds: []uint64{s.lease}}
	return s.rate(b, d, func(api registrypb.RegistryClient) error {
		_, err := api.Heartbeat(b.Context(), req)
		return err
	})
}

func (s *side) matches(b *testing.B, d time.Duration) float64 {
	req := &registrypb.MatchRequest{Group: "group", Key: []byte("user-id-1")}
	return s.rate(b, d, func(api registrypb.RegistryClient) error {
		_, err := api.Match(b.Context(), req)
		return err
	})
}

// watches is the median time in µs from a registration at one node to its event at
// another.
func (s *side) watches(b *testing.B, d time.Duration) float64 {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	stream, err := s.apis[1].Watch(ctx, &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "watched"}})
	if err != nil {
		b.Fatal(err)
	}
	var took []float64
	for began := time.Now(); time.Since(began) < d || took == nil; {
		req := benchRequest(s.next.Add(1))
		req.Group, req.Id = "watched", "one"
		req.Meta = map[string]string{"n": fmt.Sprint(s.next.Load())}
		sent := time.Now()
		r, err := s.apis[0].Register(ctx, req)
		if err != nil {
			b.Fatal(err)
		}
		for at := uint64(0); at < r.Revision; {
			e, err := stream.Recv()
			if err != nil {
				b.Fatal(err)
			}
			at = max(e.GetSnapshot().GetRevision(), e.GetDelta().GetRevision())
		}
		took = append(took, float64(time.Since(sent).Microseconds()))
	}
	return middle(took)
}
