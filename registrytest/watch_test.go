package registrytest_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// follower applies a group's events and checks each against the ring that it
// implies: the fingerprint has to be the event's.
type follower struct {
	t        *testing.T
	stream   grpc.ServerStreamingClient[registrypb.WatchEvent]
	members  map[string]*registrypb.Member
	config   *registrypb.GroupConfig
	revision uint64
	resets   int
}

func follow(t *testing.T, api registrypb.RegistryClient, group string, revision, fingerprint uint64) *follower {
	t.Helper()
	stream, err := api.Watch(t.Context(), &registrypb.WatchRequest{
		Target: &registrypb.WatchRequest_Group{Group: group}, Revision: revision, Fingerprint: fingerprint,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &follower{t: t, stream: stream, members: map[string]*registrypb.Member{}}
}

// next takes one event that is no progress.
func (f *follower) next() *registrypb.WatchEvent {
	f.t.Helper()
	for {
		e, err := f.stream.Recv()
		if err != nil {
			f.t.Fatal(err)
		}
		switch e := e.Event.(type) {
		case *registrypb.WatchEvent_Progress:
			continue
		case *registrypb.WatchEvent_Snapshot:
			clear(f.members)
			for _, m := range e.Snapshot.Members {
				f.members[m.Id] = m
			}
			f.resets++
			f.config, f.revision = e.Snapshot.Config, e.Snapshot.Revision
			f.check(e.Snapshot.Fingerprint)
		case *registrypb.WatchEvent_Delta:
			if e.Delta.From != f.revision {
				f.t.Fatalf("delta from %d, the watcher is at %d", e.Delta.From, f.revision)
			}
			for _, id := range e.Delta.Removed {
				delete(f.members, id)
			}
			for _, m := range e.Delta.Put {
				f.members[m.Id] = m
			}
			f.config, f.revision = e.Delta.Config, e.Delta.Revision
			f.check(e.Delta.Fingerprint)
		}
		return e
	}
}

func (f *follower) check(want uint64) {
	f.t.Helper()
	var members []ring.Member
	for _, m := range f.members {
		members = append(members, ring.Member{ID: m.Id, Weight: int(m.Weight), State: ring.State(m.State)})
	}
	r, err := ring.New(ring.Params{VirtualNodes: int(f.config.VirtualNodes), Bound: int(f.config.Bound)}, members)
	if err != nil {
		f.t.Fatal(err)
	}
	if got := r.Fingerprint(); got != want {
		f.t.Fatalf("at revision %d the events make ring %016x, the node says %016x", f.revision, got, want)
	}
}

func (f *follower) until(revision uint64) {
	f.t.Helper()
	for f.revision < revision {
		f.next()
	}
}

func TestWatchOfAGroupFollowsEveryChange(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))

	followers := make([]*follower, 3)
	for i, api := range c.apis {
		followers[i] = follow(t, api, "web", 0, 0)
		if e, ok := followers[i].next().Event.(*registrypb.WatchEvent_UnknownGroup); !ok {
			t.Fatalf("before the group exists: %v", e)
		}
	}
	live := map[string]bool{}
	for range 200 {
		id := fmt.Sprintf("m-%d", rnd.IntN(20))
		if live[id] && rnd.IntN(2) == 0 {
			if _, err := c.apis[rnd.IntN(3)].Deregister(t.Context(), &registrypb.DeregisterRequest{Group: "web", Id: id}); err != nil {
				t.Fatal(err)
			}
			delete(live, id)
			continue
		}
		c.register(t, rnd.IntN(3), func(r *registrypb.RegisterRequest) {
			r.Id, r.Weight = id, uint32(1+rnd.IntN(3))
		})
		live[id] = true
	}
	last := c.register(t, 0, func(r *registrypb.RegisterRequest) { r.Id = "last" }).Revision
	live["last"] = true
	for _, f := range followers {
		f.until(last)
		if got, want := slices.Sorted(maps.Keys(f.members)), slices.Sorted(maps.Keys(live)); !slices.Equal(got, want) {
			t.Errorf("followed members %v, want %v", got, want)
		}
		if f.resets > 1 {
			t.Errorf("a watcher that kept up was started over %d times", f.resets)
		}
	}
}

func TestWatchResumesOrStartsOver(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	first := c.register(t, 0, nil)
	c.applied(t, 0, first.Index)
	f := follow(t, c.apis[0], "web", 0, 0)
	e := f.next()
	fingerprint := e.GetSnapshot().GetFingerprint()
	if f.revision != first.Revision {
		t.Fatalf("snapshot: %v", e)
	}
	second := c.register(t, 0, func(r *registrypb.RegisterRequest) { r.Id = "web-2" })
	f.until(second.Revision) // so the node has applied it

	resumed := follow(t, c.apis[0], "web", first.Revision, fingerprint)
	resumed.revision = first.Revision
	resumed.members["web-1"] = f.members["web-1"]
	resumed.until(second.Revision)
	if resumed.resets != 0 {
		t.Error("a resume from a known revision was started over")
	}
	for name, from := range map[string][2]uint64{
		"unknown revision":  {first.Revision + 1<<20, 1},
		"other fingerprint": {second.Revision, 12345},
	} {
		w := follow(t, c.apis[0], "web", from[0], from[1])
		if w.next().GetSnapshot() == nil || w.revision != second.Revision {
			t.Errorf("%s: no snapshot", name)
		}
	}
}

func TestWatchOfPrefixGroupsAndNodes(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	in := func(group string) func(*registrypb.RegisterRequest) {
		return func(r *registrypb.RegisterRequest) { r.Group = group }
	}
	c.register(t, 0, in("a-1"))
	c.applied(t, 0, c.register(t, 0, in("b-1")).Index)
	open := func(req *registrypb.WatchRequest) func() *registrypb.WatchEvent {
		stream, err := c.apis[0].Watch(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return func() *registrypb.WatchEvent {
			t.Helper()
			for {
				e, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if e.GetProgress() == nil {
					return e
				}
			}
		}
	}
	prefix := open(&registrypb.WatchRequest{Target: &registrypb.WatchRequest_Prefix{Prefix: "a-"}})
	if e := prefix().GetSnapshot(); e.GetGroup() != "a-1" {
		t.Errorf("prefix starts with %v", e)
	}
	groups := open(&registrypb.WatchRequest{Target: &registrypb.WatchRequest_Groups{Groups: true}})
	if e := groups().GetGroups(); len(e.GetGroups()) != 2 {
		t.Errorf("list of groups starts with %v", e)
	}
	nodes := open(&registrypb.WatchRequest{Target: &registrypb.WatchRequest_Nodes{Nodes: true}})
	for {
		if e := nodes().GetNodes(); len(e.GetNodes()) == 3 && e.Leader != "" {
			break
		}
	}
	c.register(t, 1, in("b-2"))
	c.register(t, 1, in("a-2"))
	if e := prefix().GetSnapshot(); e.GetGroup() != "a-2" {
		t.Errorf("prefix goes on with %v", e)
	}
	for seen := map[string]bool{}; !seen["a-2"] || !seen["b-2"]; {
		for _, g := range groups().GetGroups().GetGroups() {
			seen[g.Name] = true
		}
	}
}

// A watch of a prefix goes on from the revisions that the watcher names.
func TestWatchOfAPrefixResumes(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	in := func(group, id string) *registrypb.RegisterResponse {
		return c.register(t, 0, func(r *registrypb.RegisterRequest) { r.Group, r.Id = group, id })
	}
	for _, g := range []string{"a-1", "a-2", "a-3"} {
		in(g, "one")
	}
	open := func(via int, known ...*registrypb.KnownGroup) func() *registrypb.WatchEvent {
		stream, err := c.apis[via].Watch(t.Context(), &registrypb.WatchRequest{
			Target: &registrypb.WatchRequest_Prefix{Prefix: "a-"}, Known: known, ProgressInterval: durationpb.New(time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
		return func() *registrypb.WatchEvent {
			t.Helper()
			e, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
	}
	first := open(0)
	var known []*registrypb.KnownGroup
	for len(known) < 3 {
		if s := first().GetSnapshot(); s != nil {
			known = append(known, &registrypb.KnownGroup{Group: s.Group, Revision: s.Revision, Fingerprint: s.Fingerprint})
		}
	}
	changed := in("a-2", "two")
	// A node that is behind would say that it knows no such groups.
	if _, err := c.apis[1].Members(t.Context(), &registrypb.MembersRequest{Group: "a-3", Read: &registrypb.ReadOptions{MinIndex: changed.Index}}); err != nil {
		t.Fatal(err)
	}
	resumed := open(1, append(known, &registrypb.KnownGroup{Group: "a-9", Revision: 1, Fingerprint: 2})...)
	deltas, unknown := 0, 0
	for done := false; !done; {
		switch e := resumed().Event.(type) {
		case *registrypb.WatchEvent_Delta:
			deltas++
			if e.Delta.Group != "a-2" || e.Delta.Revision != changed.Revision {
				t.Errorf("delta %v", e.Delta)
			}
		case *registrypb.WatchEvent_UnknownGroup:
			unknown++
		case *registrypb.WatchEvent_Progress:
			done = e.Progress.Index >= changed.Index && deltas > 0
		default:
			t.Errorf("event %v", e)
		}
	}
	if deltas != 1 || unknown != 1 {
		t.Errorf("%d deltas, %d unknown groups", deltas, unknown)
	}
	stream, err := c.apis[0].Watch(t.Context(), &registrypb.WatchRequest{
		Target: &registrypb.WatchRequest_Prefix{}, Known: make([]*registrypb.KnownGroup, 10_001),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
}

// Every watch at a node that stops ends with that reason.
func TestWatchesEndWithTheirNode(t *testing.T) {
	t.Parallel()
	c := newAPINodes(t, 1)
	var streams []grpc.ServerStreamingClient[registrypb.WatchEvent]
	for range 100 {
		f := follow(t, c.apis[0], "web", 0, 0)
		f.next()
		streams = append(streams, f.stream)
	}
	if err := c.nodes[0].Close(); err != nil {
		t.Error(err)
	}
	for _, s := range streams {
		wantReason(t, untilEnd(s), codes.Unavailable, registrypb.ErrorDetail_NOT_READY)
	}
}
