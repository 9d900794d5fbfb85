package routing

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/internal/sdktest"
)

func TestMain(m *testing.M) {
	sdktest.RefuseProxies()
	goleak.VerifyTestMain(m)
}

const within = sdktest.Within

var (
	testContext = sdktest.Context
	eventually  = sdktest.Eventually
)

// fakeCluster has one group, g, whose versions tests write. Its nodes send them
// as snapshots.
type fakeCluster struct {
	t     *testing.T
	nodes []*fakeNode

	mu       sync.Mutex // guards the rest, and the nodes
	versions []fakeVersion
	news     chan struct{} // closed at the next change
}

type fakeVersion struct {
	revision uint64
	members  []*registrypb.Member // ordered by id
}

type fakeNode struct {
	registrypb.UnimplementedRegistryServer
	cl     *fakeCluster
	addr   string
	pinned int // versions that it knows; 0: all
}

func newFakeCluster(t *testing.T, nodes int) *fakeCluster {
	t.Helper()
	cl := &fakeCluster{t: t, news: make(chan struct{})}
	for range nodes {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n := &fakeNode{cl: cl, addr: lis.Addr().String()}
		srv := grpc.NewServer()
		registrypb.RegisterRegistryServer(srv, n)
		var served sync.WaitGroup
		served.Go(func() { _ = srv.Serve(lis) })
		t.Cleanup(func() { srv.Stop(); served.Wait() })
		cl.nodes = append(cl.nodes, n)
	}
	return cl
}

// write makes the group's next version and returns its revision.
func (cl *fakeCluster) write(members ...*registrypb.Member) uint64 {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	v := fakeVersion{uint64(100 + 3*len(cl.versions)), slices.Clone(members)}
	slices.SortFunc(v.members, func(a, b *registrypb.Member) int { return cmp.Compare(a.Id, b.Id) })
	cl.versions = append(cl.versions, v)
	cl.changedLocked()
	return v.revision
}

func (cl *fakeCluster) changedLocked() {
	close(cl.news)
	cl.news = make(chan struct{})
}

func (cl *fakeCluster) newest() fakeVersion {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.versions[len(cl.versions)-1]
}

// pin keeps the node at the present version, as if it were cut off.
func (n *fakeNode) pin() {
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	n.pinned = len(n.cl.versions)
}

func (n *fakeNode) unpin() {
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	n.pinned = 0
	n.cl.changedLocked()
}

func (n *fakeNode) Watch(_ *registrypb.WatchRequest, s registrypb.Registry_WatchServer) error {
	var sent uint64
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		n.cl.mu.Lock()
		known := len(n.cl.versions)
		if n.pinned > 0 {
			known = n.pinned
		}
		v, news := n.cl.versions[known-1], n.cl.news
		n.cl.mu.Unlock()
		e := &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{}}}
		if v.revision != sent {
			sent = v.revision
			e.Event = &registrypb.WatchEvent_Snapshot{Snapshot: &registrypb.GroupSnapshot{
				Group: "g", Revision: v.revision, Index: v.revision, Fingerprint: ringOf(v.members).Fingerprint(),
				Config: &registrypb.GroupConfig{VirtualNodes: 64}, Members: v.members, ClusterId: "cluster-1",
			}}
		}
		if err := s.Send(e); err != nil {
			return err
		}
		select {
		case <-news:
		case <-tick.C:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

// openRing opens a ring that a node feeds.
func (cl *fakeCluster) openRing(node int, opts ...sdk.RingOption) *sdk.Ring {
	cl.t.Helper()
	c, err := sdk.Dial(cl.nodes[node].addr, sdk.WithRefreshInterval(0))
	if err != nil {
		cl.t.Fatal(err)
	}
	cl.t.Cleanup(func() { _ = c.Close() })
	r, err := c.Ring(testContext(cl.t), "g", opts...)
	if err != nil {
		cl.t.Fatal(err)
	}
	return r
}

func wait(t *testing.T, r *sdk.Ring, revision uint64) {
	t.Helper()
	if err := r.Wait(testContext(t), revision); err != nil {
		t.Fatalf("the ring is at %d, waiting for %d: %v", r.Revision(), revision, err)
	}
}

func memberIDs(n int) []*registrypb.Member {
	var ms []*registrypb.Member
	for i := range n {
		id := fmt.Sprintf("m-%d", i)
		ms = append(ms, &registrypb.Member{Id: id, Addr: id + ":80", Weight: 1})
	}
	return ms
}

// holding returns the members with those of the ids held.
func holding(ms []*registrypb.Member, ids ...string) []*registrypb.Member {
	out := slices.Clone(ms)
	for i, m := range out {
		if slices.Contains(ids, m.Id) {
			out[i] = &registrypb.Member{Id: m.Id, Addr: m.Addr, Weight: m.Weight, State: registrypb.MemberState_MEMBER_STATE_HELD}
		}
	}
	return out
}

func ringOf(members []*registrypb.Member) *ring.Ring {
	var ms []ring.Member
	for _, m := range members {
		member := ring.Member{ID: m.Id, Weight: int(m.Weight)}
		if m.State == registrypb.MemberState_MEMBER_STATE_HELD {
			member.State = ring.Held
		}
		ms = append(ms, member)
	}
	r, err := ring.New(ring.Params{VirtualNodes: 64}, ms)
	if err != nil {
		panic(err)
	}
	return r
}
