package registrytest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// maxExpire is the longest TTL that Expire waits for.
const maxExpire = 20 * time.Second

// Expire lets the lease of a member end as if its process had fallen silent, and
// returns when the registry has dropped it. The service must have been
// registered by a client of this cluster, Client or one of Dial, whose heartbeats
// for this member are kept back from now on. That takes the member's TTL: register
// with a TTL of 1 s.
//
// After resume heartbeats go on: the service learns from the next one, within a
// third of its TTL, that the lease is lost, and its client registers it again.
func (c *Cluster) Expire(group, id string) (resume func()) {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	m := member{group, id}
	if !c.beats.known(m) {
		c.t.Fatalf("registrytest: Expire: %s/%s was registered by no client of this cluster", group, id)
	}
	members, err := c.client.Members(ctx, group, sdk.Linearizable())
	c.check("Expire", err)
	isIt := func(m sdk.Member) bool { return m.ID == id }
	at := slices.IndexFunc(members, isIt)
	if at < 0 {
		c.t.Fatalf("registrytest: Expire: group %s has no member %s", group, id)
	}
	if ttl := members[at].TTL; ttl > maxExpire {
		c.t.Fatalf("registrytest: Expire: %s/%s has a TTL of %v, want at most %v", group, id, ttl, maxExpire)
	}
	watch, err := c.client.Watch(ctx, group)
	c.check("Expire", err)
	defer func() { _ = watch.Close() }()
	c.beats.mute(m, true)
	for {
		e, err := watch.Next(ctx)
		if err != nil {
			c.t.Fatalf("registrytest: Expire: %s/%s is still there: %v", group, id, err)
		}
		gone := e.Unknown || slices.Contains(e.Removed, id) || e.Reset && !slices.ContainsFunc(e.Put, isIt)
		if gone && e.Index > members[at].CreatedIndex { // or the node has not applied the registration yet
			return func() { c.beats.mute(m, false) }
		}
	}
}

// Pin makes a member the owner of a key: it drains, one after another, the
// members that own the key before it. A ring has no exceptions, so these
// lose all their other keys too. Unpin makes them active again.
func (c *Cluster) Pin(group, key, id string) (unpin func()) {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	members, err := c.client.Members(ctx, group, sdk.Linearizable())
	c.check("Pin", err)
	if !slices.ContainsFunc(members, func(m sdk.Member) bool { return m.ID == id && m.State != sdk.StateDraining }) {
		c.t.Fatalf("registrytest: Pin: group %s has no member %s that takes keys", group, id)
	}
	var drained []string
	for {
		owner, err := c.client.Match(ctx, group, key, sdk.Linearizable())
		c.check("Pin", err)
		if owner.ID == id {
			break
		}
		c.setState(ctx, group, owner.ID, sdk.StateDraining)
		drained = append(drained, owner.ID)
	}
	return func() {
		c.t.Helper()
		ctx, cancel := c.context()
		defer cancel()
		for _, id := range drained {
			c.setState(ctx, group, id, sdk.StateActive)
		}
	}
}

func (c *Cluster) setState(ctx context.Context, group, id string, state sdk.State) {
	c.t.Helper()
	_, err := c.client.UpdateMember(ctx, group, id, sdk.MemberUpdate{State: &state})
	c.check("Pin", err)
}

// Key returns a key that the member owns. It changes nothing, and is the same
// for the same members.
func (c *Cluster) Key(group, id string) string {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%d", i)
	}
	owners, err := c.client.MatchMany(ctx, group, keys, sdk.Linearizable())
	c.check("Key", err)
	i := slices.IndexFunc(owners, func(m sdk.Member) bool { return m.ID == id })
	if i < 0 {
		c.t.Fatalf("registrytest: Key: %s/%s owns none of %d keys: is it a member that takes keys?", group, id, len(keys))
	}
	return keys[i]
}

type member struct{ group, id string }

// beats keeps back heartbeats of the cluster's clients.
type beats struct {
	mu     sync.Mutex // guards both
	leases map[uint64]member
	muted  map[member]bool
}

func newBeats() *beats { return &beats{leases: map[uint64]member{}, muted: map[member]bool{}} }

func (b *beats) known(m member) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, of := range b.leases {
		if of == m {
			return true
		}
	}
	return false
}

func (b *beats) mute(m member, muted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.muted[m] = muted
}

func (b *beats) granted(lease uint64, m member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leases[lease] = m
}

// pass returns the leases whose heartbeats may be sent.
func (b *beats) pass(leases []uint64) []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(leases), func(l uint64) bool { return b.muted[b.leases[l]] })
}

// dialOptions makes a client report its leases and ask before it renews them.
func (b *beats) dialOptions() []grpc.DialOption {
	registered := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := call(ctx, method, req, reply, conn, opts...)
		if r, ok := req.(*registrypb.RegisterRequest); ok && err == nil {
			b.granted(reply.(*registrypb.RegisterResponse).LeaseId, member{r.Group, r.Id})
		}
		return err
	}
	renewing := func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := open(ctx, desc, conn, method, opts...)
		if err != nil || method != registrypb.Registry_HeartbeatStream_FullMethodName {
			return s, err
		}
		return &beatStream{s, b}, nil
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(registered), grpc.WithChainStreamInterceptor(renewing)}
}

type beatStream struct {
	grpc.ClientStream
	beats *beats
}

func (s *beatStream) SendMsg(m any) error {
	if r, ok := m.(*registrypb.HeartbeatRequest); ok {
		m = &registrypb.HeartbeatRequest{LeaseIds: s.beats.pass(r.LeaseIds)}
	}
	return s.ClientStream.SendMsg(m)
}
