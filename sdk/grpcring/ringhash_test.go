package grpcring_test

import (
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer/ringhash"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	hashkey "google.golang.org/grpc/resolver/ringhash"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk/grpcring"
)

// hashed are the members as endpoints for gRPC's ring_hash, with their ids as
// hash keys.
func hashed(members []*registrypb.Member) resolver.State {
	var s resolver.State
	for _, m := range members {
		s.Endpoints = append(s.Endpoints, hashkey.SetHashKey(resolver.Endpoint{Addresses: []resolver.Address{{Addr: m.Addr}}}, m.Id))
	}
	return s
}

// hashConfig gives ring_hash as many points as the registry's ring has. gRPC
// caps them at 4096.
func hashConfig(members int) string {
	return fmt.Sprintf(`{"minRingSize": %d, "maxRingSize": %[1]d, "requestHashHeader": "key"}`, virtualNodes*members)
}

// gRPC's ring_hash with the member's id as the hash key has the same owner for
// 100,000 keys: its own exported policy and this package's are asked for picks.
func TestSameOwnersAsRingHash(t *testing.T) {
	for _, n := range []int{1, 3, 10, 16} {
		t.Run(fmt.Sprint(n, " members"), func(t *testing.T) {
			members := manyMembers(n)
			theirs := policyOn(t, ringhash.Name, hashConfig(n), hashed(members))
			ours := policyOn(t, grpcring.Name, `{"keyHeader": "key"}`, resolved(t, members))
			ctx, count := testContext(t), map[string]int{}
			for i := range 100_000 {
				key := fmt.Sprint("user-id-", i)
				ctx := withHeader(ctx, key)
				want, err := theirs.pick(ctx)
				if err != nil {
					t.Fatal(err)
				}
				got, err := ours.pick(ctx)
				if err != nil || got != want {
					t.Fatalf("%s goes to %s, %v; by ring_hash to %s", key, got, err, want)
				}
				count[got]++
			}
			if len(count) != n {
				t.Errorf("%d of %d members own keys", len(count), n)
			}
		})
	}
}

// The same through calls to real servers.
func TestSameOwnersAsRingHashByCalls(t *testing.T) {
	reg := startRegistry(t)
	_, members := fleet(t, "a", "b", "c", "d", "e")
	reg.set("web", members...)
	r := manual.NewBuilderWithScheme("registry")
	r.InitialState(hashed(members))
	theirs := dial(t, r, grpc.WithDefaultServiceConfig(fmt.Sprintf(`{"loadBalancingConfig": [{%q: %s}]}`, ringhash.Name, hashConfig(len(members)))))
	ours := dial(t, grpcring.NewBuilder(dialRegistry(t, reg)))
	for i := range 300 {
		key := fmt.Sprint("user-id-", i)
		want, _, err := ask(metadata.AppendToOutgoingContext(testContext(t), "key", key), theirs, "")
		if err != nil {
			t.Fatal(err)
		}
		mustAsk(t, ours, key, want)
	}
}
