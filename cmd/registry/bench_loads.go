package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// benchTTL lets what a run registered go soon after it.
const benchTTL = 30 * time.Second

type registerLoad struct {
	benchGroups
	batch int
	next  atomic.Int64
}

func newRegisterLoad(c *cli.Context) load {
	return &registerLoad{benchGroups: newBenchGroups(c), batch: c.Int("batch")}
}

func (l *registerLoad) prepare(context.Context, []registrypb.RegistryClient) error { return nil }

func (l *registerLoad) caller(_ int, client registrypb.RegistryClient) func(context.Context) (int, error) {
	member := func() *registrypb.RegisterRequest {
		n := int(l.next.Add(1))
		return benchMember(l.group(n), n)
	}
	if l.batch == 1 {
		return func(ctx context.Context) (int, error) {
			_, err := client.Register(ctx, member())
			return 1, err
		}
	}
	return func(ctx context.Context) (int, error) {
		req := &registrypb.RegisterManyRequest{}
		for range l.batch {
			req.Registrations = append(req.Registrations, member())
		}
		resp, err := client.RegisterMany(ctx, req)
		for _, r := range resp.GetResults() {
			if f := r.GetFailure(); f != nil {
				return 0, errors.New(f.GetMessage())
			}
		}
		return l.batch, err
	}
}

func benchMember(group string, n int) *registrypb.RegisterRequest {
	return &registrypb.RegisterRequest{
		Group: group, Id: fmt.Sprintf("member-%08d", n), Addr: fmt.Sprintf("10.0.%d.%d:8080", n/256%256, n%256),
		Ttl: durationpb.New(benchTTL), Instance: fmt.Appendf(nil, "bench-%d", n),
	}
}

// benchMembers registers the same number of members in each group, 64 at a time, and waits
// until each node has them.
type benchMembers struct {
	benchGroups
	members int
	leases  []uint64
}

func newBenchMembers(c *cli.Context) benchMembers {
	return benchMembers{benchGroups: newBenchGroups(c), members: c.Int("members")}
}

func (s *benchMembers) prepare(ctx context.Context, clients []registrypb.RegistryClient) error {
	s.leases = make([]uint64, s.count*s.members)
	var next atomic.Int64
	indexes := make([]uint64, len(s.leases))
	var first error
	var once sync.Once
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= len(s.leases) {
					return
				}
				r, err := clients[w%len(clients)].Register(ctx, benchMember(s.group(n), n))
				if err != nil {
					once.Do(func() { first = err })
					return
				}
				s.leases[n], indexes[n] = r.LeaseId, r.Index
			}
		})
	}
	wg.Wait()
	for _, client := range clients {
		if first != nil {
			break
		}
		_, first = client.Index(ctx, &registrypb.IndexRequest{Read: &registrypb.ReadOptions{MinIndex: slices.Max(indexes)}})
	}
	return first
}

type heartbeatLoad struct {
	benchMembers
	batch int
}

func newHeartbeatLoad(c *cli.Context) load {
	return &heartbeatLoad{benchMembers: newBenchMembers(c), batch: c.Int("batch")}
}

func (l *heartbeatLoad) caller(i int, client registrypb.RegistryClient) func(context.Context) (int, error) {
	at := i * l.batch
	return func(ctx context.Context) (int, error) {
		ids := make([]uint64, l.batch)
		for k := range ids {
			ids[k] = l.leases[at%len(l.leases)]
			at++
		}
		r, err := client.Heartbeat(ctx, &registrypb.HeartbeatRequest{LeaseIds: ids})
		if err != nil {
			return 0, err
		}
		if len(r.Lost) > 0 {
			return 0, fmt.Errorf("%s lost", count(len(r.Lost), "lease", "leases"))
		}
		return l.batch, nil
	}
}

type matchLoad struct {
	benchMembers
	batch int
}

func newMatchLoad(c *cli.Context) load {
	return &matchLoad{benchMembers: newBenchMembers(c), batch: c.Int("batch")}
}

func (l *matchLoad) caller(i int, client registrypb.RegistryClient) func(context.Context) (int, error) {
	n := i * 1_000_003
	next := func() []byte {
		n++
		return fmt.Appendf(nil, "user-id-%d", n)
	}
	if l.batch == 1 {
		return func(ctx context.Context) (int, error) {
			_, err := client.Match(ctx, &registrypb.MatchRequest{Group: l.group(n), Key: next()})
			return 1, err
		}
	}
	return func(ctx context.Context) (int, error) {
		keys := make([][]byte, l.batch)
		for k := range keys {
			keys[k] = next()
		}
		_, err := client.MatchMany(ctx, &registrypb.MatchManyRequest{Group: l.group(n), Keys: keys})
		return l.batch, err
	}
}
