package registrytest_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// BenchmarkSnapshot saves and restores the state of three nodes under load. Rounds with a
// save from a follower and rounds without alternate; write-p99-ratio is that of the
// writes' latencies over all rounds of both.
//
//	go test -run '^$' -bench Snapshot -benchtime 1x -timeout 30m ./registrytest
func BenchmarkSnapshot(b *testing.B) {
	members, rounds, each := 100_000, 5, 4*time.Second
	if testing.Short() {
		members, rounds, each = 2_000, 1, 200*time.Millisecond
	}
	c := registrytest.Start(b, registrytest.WithNodes(3))
	fill(b, c, members)
	follower := c.Nodes()[(c.Leader()+1)%3]
	client, err := sdk.Dial(follower.Addr(), sdk.WithCallTimeout(registrytest.Patience))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for b.Loop() {
		var with, without []time.Duration
		var file bytes.Buffer
		var saves []time.Duration
		for range rounds {
			without = append(without, writes(b, c, each, func(context.Context) {})...)
			with = append(with, writes(b, c, each, func(ctx context.Context) {
				for ctx.Err() == nil {
					file.Reset()
					began := time.Now()
					if _, err := client.SaveSnapshot(b.Context(), &file); err != nil {
						b.Error(err)
						return
					}
					saves = append(saves, time.Since(began))
				}
			})...)
		}
		began := time.Now()
		if _, err := client.RestoreSnapshot(b.Context(), bytes.NewReader(file.Bytes())); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "restore-s")
		b.ReportMetric(middle(seconds(saves)), "save-s")
		b.ReportMetric(float64(file.Len())/1e6, "file-MB")
		slices.Sort(without)
		slices.Sort(with)
		o, w := without[len(without)*99/100], with[len(with)*99/100]
		b.ReportMetric(float64(o.Microseconds())/1e3, "write-p99-ms")
		b.ReportMetric(float64(w.Microseconds())/1e3, "beside-save-p99-ms")
		b.ReportMetric(float64(w)/float64(o), "write-p99-ratio")
	}
}

func seconds(all []time.Duration) []float64 {
	out := make([]float64, len(all))
	for i, d := range all {
		out[i] = d.Seconds()
	}
	return out
}

func open(b *testing.B, addr string) registrypb.RegistryClient {
	b.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return registrypb.NewRegistryClient(conn)
}

// fill registers members in groups of 1,000.
func fill(b *testing.B, c *registrytest.Cluster, members int) {
	b.Helper()
	const batch = 1000
	api := open(b, c.Nodes()[c.Leader()].Addr())
	for from := 0; from < members; from += batch {
		req := &registrypb.RegisterManyRequest{}
		for i := from; i < min(from+batch, members); i++ {
			req.Registrations = append(req.Registrations, &registrypb.RegisterRequest{
				Group: fmt.Sprintf("group-%d", from/batch), Id: fmt.Sprintf("member-%d", i), Addr: "10.0.0.1:8080",
				Ttl: durationpb.New(time.Hour), Meta: map[string]string{"zone": "a", "version": "1.2.3"},
			})
		}
		resp, err := api.RegisterMany(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range resp.Results {
			if r.GetFailure() != nil {
				b.Fatal(r.GetFailure())
			}
		}
	}
}

// writes registers for a while at the leader, beside another task, and returns the
// latencies.
func writes(b *testing.B, c *registrytest.Cluster, d time.Duration, beside func(context.Context)) []time.Duration {
	b.Helper()
	const callers, interval = 8, 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(b.Context(), d)
	defer cancel()
	api := open(b, c.Nodes()[c.Leader()].Addr())
	var mu sync.Mutex // guards all
	var all []time.Duration
	var work sync.WaitGroup
	work.Go(func() { beside(ctx) })
	for caller := range callers {
		work.Go(func() {
			tick := time.NewTicker(interval)
			defer tick.Stop()
			var mine []time.Duration
			for i := 0; ctx.Err() == nil; i++ {
				began := time.Now()
				_, err := api.Register(b.Context(), &registrypb.RegisterRequest{
					Group: "load", Id: fmt.Sprintf("w%d-%d", caller, i%100), Addr: "10.0.0.2:8080", Ttl: durationpb.New(time.Hour),
				})
				if err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(began))
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	work.Wait()
	return all
}
