package grpcring_test

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/ringhash"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk/grpcring"
)

func manyMembers(n int) []*registrypb.Member {
	var ms []*registrypb.Member
	for i := range n {
		ms = append(ms, &registrypb.Member{Id: fmt.Sprint("web-", i), Addr: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256), Weight: 1})
	}
	return ms
}

// resolved is what the resolver says of members.
func resolved(t testing.TB, ms []*registrypb.Member) resolver.State {
	t.Helper()
	reg := startRegistry(t)
	reg.set("web", ms...)
	return resolve(t, reg)
}

func withHeader(ctx context.Context, key string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.MD{"key": {key}})
}

// picker returns a policy's picker with every member that owns one of the keys
// connected, and the contexts of calls with these keys.
func picker(t testing.TB, c *channel, keyed func(context.Context, string) context.Context) (balancer.Picker, []context.Context) {
	t.Helper()
	base := testContext(t)
	ctxs := make([]context.Context, 1024)
	for i := range ctxs {
		ctxs[i] = keyed(base, fmt.Sprint("user-id-", i))
		if _, err := c.pick(ctxs[i]); err != nil {
			t.Fatal(err)
		}
	}
	return c.picker, ctxs
}

func TestPickAllocatesNothing(t *testing.T) {
	p, ctxs := picker(t, policyOn(t, grpcring.Name, `{}`, resolved(t, manyMembers(10))), grpcring.WithKey)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := p.Pick(balancer.PickInfo{Ctx: ctxs[0]}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The same keys by this package and by gRPC's ring_hash, which takes them from
// a header only, and whose ring has 4096 points at most.
func BenchmarkPick(b *testing.B) {
	run := func(name string, policy func(testing.TB) *channel, keyed func(context.Context, string) context.Context) {
		b.Run(name, func(b *testing.B) {
			p, ctxs := picker(b, policy(b), keyed)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := p.Pick(balancer.PickInfo{Ctx: ctxs[i%len(ctxs)]}); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
	ours := func(n int) func(testing.TB) *channel {
		return func(t testing.TB) *channel {
			return policyOn(t, grpcring.Name, `{"keyHeader": "key"}`, resolved(t, manyMembers(n)))
		}
	}
	for _, n := range []int{10, 100, 1000} {
		run(fmt.Sprintf("members=%d", n), ours(n), grpcring.WithKey)
	}
	run("members=10/header", ours(10), withHeader)
	run("members=10/ring_hash", func(t testing.TB) *channel {
		return policyOn(t, ringhash.Name, hashConfig(10), hashed(manyMembers(10)))
	}, withHeader)
}

// What it costs a policy that a member comes or goes.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			ms := manyMembers(n)
			both := []resolver.State{resolved(b, ms), resolved(b, ms[:n-1])}
			update := newChannel(b).start(b, grpcring.Name, `{}`)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				update(both[i%2])
				i++
			}
		})
	}
}
