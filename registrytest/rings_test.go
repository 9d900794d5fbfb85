package registrytest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// routed is an answer of MatchMany: the receipt, and the owner of every key.
type routed struct {
	asked   uint64 // index that the answer must have
	receipt *registrypb.Receipt
	owners  []string
}

// revisions follows a group at one node and keeps its members at every revision
// that the node had: another may apply several entries together.
type revisions struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[registrypb.WatchEvent]
	known  map[uint64]map[string]ring.Member
	config *registrypb.GroupConfig
	last   uint64
}

func followRevisions(t *testing.T, api registrypb.RegistryClient) *revisions {
	t.Helper()
	stream, err := api.Watch(t.Context(), &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "web"}})
	if err != nil {
		t.Fatal(err)
	}
	r := &revisions{t: t, stream: stream, known: map[uint64]map[string]ring.Member{}}
	r.take() // the group as it is now
	return r
}

func (r *revisions) take() {
	r.t.Helper()
	e, err := r.stream.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	switch e := e.Event.(type) {
	case *registrypb.WatchEvent_Snapshot:
		r.note(map[string]ring.Member{}, e.Snapshot.Config, e.Snapshot.Revision, nil, e.Snapshot.Members)
	case *registrypb.WatchEvent_Delta:
		r.note(r.known[e.Delta.From], e.Delta.Config, e.Delta.Revision, e.Delta.Removed, e.Delta.Put)
	}
}

func (r *revisions) note(before map[string]ring.Member, c *registrypb.GroupConfig, revision uint64, removed []string, put []*registrypb.Member) {
	now := make(map[string]ring.Member, len(before)+len(put))
	for id, m := range before {
		now[id] = m
	}
	for _, id := range removed {
		delete(now, id)
	}
	for _, m := range put {
		now[m.Id] = ring.Member{ID: m.Id, Weight: int(m.Weight), State: ring.State(m.State)}
	}
	r.known[revision], r.config, r.last = now, c, revision
}

// check builds the ring of the revision that a receipt names anew and compares
// the owners of all keys.
func (r *revisions) check(keys [][]byte, got routed) {
	r.t.Helper()
	members, known := r.known[got.receipt.Revision]
	if !known {
		r.t.Errorf("a receipt names revision %d, at which the group never was", got.receipt.Revision)
		return
	}
	var all []ring.Member
	for _, m := range members {
		all = append(all, m)
	}
	built, err := ring.New(ring.Params{VirtualNodes: int(r.config.VirtualNodes), Bound: int(r.config.Bound)}, all)
	if err != nil {
		r.t.Fatal(err)
	}
	if built.Fingerprint() != got.receipt.Fingerprint {
		r.t.Errorf("revision %d has fingerprint %016x, the receipt says %016x", got.receipt.Revision, built.Fingerprint(), got.receipt.Fingerprint)
	}
	for i, key := range keys {
		if want := built.Member(built.Match(string(key))).ID; got.owners[i] != want {
			r.t.Errorf("at revision %d key %s belongs to %s, the answer with its receipt says %s", got.receipt.Revision, key, want, got.owners[i])
			return
		}
	}
}

// While a group changes all the time, every answer is that of the ring which its
// receipt names, on every node, whether the ring is a moment behind or not.
func TestReceiptNamesTheRingThatAnswered(t *testing.T) {
	t.Parallel()
	const members, changes = 300, 150
	c := newAPICluster(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range members {
		c.register(t, i%3, func(r *registrypb.RegisterRequest) { r.Id = fmt.Sprintf("m-%d", i) })
	}
	var seen []*revisions
	for _, api := range c.apis {
		seen = append(seen, followRevisions(t, api))
	}
	keys := make([][]byte, 200)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key-%d", i)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	answers := make([][]routed, len(c.apis))
	var asking sync.WaitGroup
	for i, api := range c.apis {
		asking.Go(func() { answers[i] = ask(ctx, api, keys) })
	}
	var last uint64
	for i := range changes {
		last = c.register(t, i%3, func(r *registrypb.RegisterRequest) {
			r.Id, r.Weight = fmt.Sprintf("m-%d", rnd.IntN(members+20)), uint32(1+rnd.IntN(5))
		}).Revision
		c.register(t, i%3, func(r *registrypb.RegisterRequest) { r.Group = "other" }) // the index goes on
	}
	stop()
	asking.Wait()
	behind := 0
	for i, all := range answers {
		for seen[i].last < last {
			seen[i].take()
		}
		for _, a := range sampled(all, 60) {
			seen[i].check(keys, a)
		}
		for _, a := range all {
			if a.receipt.Index < a.asked || a.receipt.Revision > a.receipt.Index {
				t.Errorf("an answer from revision %d at index %d, asked was for %d", a.receipt.Revision, a.receipt.Index, a.asked)
			}
			if a.receipt.Lag.AsDuration() > 0 {
				behind++
			}
		}
		t.Logf("%d answers", len(all))
	}
	t.Logf("%d from a ring or a node that was behind", behind)
}

func ask(ctx context.Context, api registrypb.RegistryClient, keys [][]byte) (all []routed) {
	for seen, turn := uint64(0), 0; ; turn++ {
		index := seen * uint64(turn%2) // every other answer must be as new as those before
		r, err := api.MatchMany(ctx, &registrypb.MatchManyRequest{Group: "web", Keys: keys, Read: &registrypb.ReadOptions{MinIndex: index}})
		if err != nil {
			return all
		}
		seen = max(seen, r.Receipt.Index)
		a := routed{asked: index, receipt: r.Receipt, owners: make([]string, len(keys))}
		for i := range keys {
			a.owners[i] = r.Members[r.Owners[i]].Id
		}
		all = append(all, a)
	}
}

// sampled returns at most n, evenly.
func sampled(all []routed, n int) []routed {
	if len(all) <= n {
		return all
	}
	out := make([]routed, n)
	for i := range out {
		out[i] = all[i*len(all)/n]
	}
	return out
}

// A node builds rings of the groups that it is asked about, and of no others:
// registrations, heartbeats, lists and watches need none.
func TestRingsAreBuiltOnDemand(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	var leases []uint64
	for i := range 60 {
		r := c.register(t, i%3, func(r *registrypb.RegisterRequest) { r.Group, r.Id = fmt.Sprintf("g-%d", i%6), fmt.Sprint(i) })
		leases = append(leases, r.LeaseId)
	}
	stream, err := c.apis[1].Watch(t.Context(), &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Prefix{Prefix: "g-"}})
	if err != nil {
		t.Fatal(err)
	}
	for e := (*registrypb.WatchEvent)(nil); e.GetProgress() == nil; {
		if e, err = stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	for _, api := range c.apis {
		if _, err := api.Members(t.Context(), &registrypb.MembersRequest{Group: "g-1", Read: &registrypb.ReadOptions{Linearizable: true}}); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Heartbeat(t.Context(), &registrypb.HeartbeatRequest{LeaseIds: leases}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		awaitSample(t, n, "registry_ring_builds_total", exactly(0))
	}
	if _, err := c.apis[2].Match(t.Context(), &registrypb.MatchRequest{Group: "g-1", Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	awaitSample(t, c.nodes[2], "registry_ring_builds_total", exactly(1))
	awaitSample(t, c.nodes[0], "registry_ring_builds_total", exactly(0))
}

// A watcher that goes on from what it had in another cluster is given everything:
// equal members at other addresses have equal fingerprints.
func TestWatchOfAnotherClusterStartsOver(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	r := c.register(t, 0, nil)
	m, err := c.apis[0].Members(t.Context(), &registrypb.MembersRequest{Group: "web", Read: &registrypb.ReadOptions{MinIndex: r.Index}}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	own := m.Receipt.ClusterId
	if own == "" {
		t.Fatal("a receipt without the cluster's id")
	}
	for cluster, want := range map[string]bool{own: false, "": false, "another": true} {
		stream, err := c.apis[0].Watch(t.Context(), &registrypb.WatchRequest{
			Target: &registrypb.WatchRequest_Group{Group: "web"}, Revision: r.Revision, Fingerprint: m.Receipt.Fingerprint, ClusterId: cluster,
			ProgressInterval: durationpb.New(time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := e.GetSnapshot() != nil; got != want || got && e.GetSnapshot().ClusterId != own {
			t.Errorf("cluster %q: first event %v", cluster, e)
		}
	}
}

// A group whose ring does not fit into the node's memory for rings is refused by
// name; all else of it works.
func TestRingLargerThanItsMemoryIsRefused(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	_, err := c.apis[0].SetGroup(t.Context(), &registrypb.SetGroupRequest{Group: "web", Config: &registrypb.GroupConfig{VirtualNodes: 4096}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // 20 million points
		r := c.register(t, 0, func(r *registrypb.RegisterRequest) { r.Id, r.Weight = fmt.Sprint(i), 1000 })
		c.applied(t, 0, r.Index)
	}
	_, err = c.apis[0].Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: []byte("k")})
	wantReason(t, err, codes.ResourceExhausted, registrypb.ErrorDetail_EXHAUSTED)
	if m, err := c.apis[0].Members(t.Context(), &registrypb.MembersRequest{Group: "web"}); err != nil || len(m.Members) != 5 ||
		!slices.ContainsFunc(m.Members, func(m *registrypb.Member) bool { return m.Id == "4" }) {
		t.Errorf("members: %v, %v", m, err)
	}
}
