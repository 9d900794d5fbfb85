package sdk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// replica is a group made from the events of a watch.
type replica struct {
	members  map[string]Member
	revision uint64
	events   int
	resets   int
}

// take applies an event as its documentation says.
func (g *replica) take(t *testing.T, e GroupEvent) {
	t.Helper()
	g.events++
	if e.From != g.revision {
		t.Errorf("event from %d, the one before was at %d", e.From, g.revision)
	}
	if e.Revision <= g.revision && !e.Rebuilt && !e.Unknown && g.events > 1 {
		t.Errorf("went back from %d to %d", g.revision, e.Revision)
	}
	if e.Reset || e.Unknown {
		g.members = map[string]Member{}
		g.resets++
	}
	for _, m := range e.Put {
		g.members[m.ID] = m
	}
	for _, id := range e.Removed {
		delete(g.members, id)
	}
	g.revision = e.Revision
}

// is compares with the history's version of that revision.
func (g *replica) is(cl *fakeCluster, group string) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	for _, v := range cl.histories[group].versions {
		if v.revision != g.revision {
			continue
		}
		want := map[string]Member{}
		for _, m := range v.members {
			want[m.Id] = memberFromProto(m)
		}
		if diff := cmp.Diff(want, g.members, cmpopts.EquateEmpty()); diff != "" {
			return fmt.Errorf("at revision %d: %s", g.revision, diff)
		}
		return nil
	}
	return fmt.Errorf("revision %d is none of the history", g.revision)
}

func next[T any](t *testing.T, w *Watch[T]) T {
	t.Helper()
	e, err := w.Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Snapshot and deltas make the group of every revision that is shown, through
// resumes, resets, nodes that are behind, and a consumer that comes and goes.
func TestWatchOfARandomHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		cl := newFakeWatched(t, 3)
		live := map[string]*registrypb.Member{}
		write := func() uint64 {
			id := fmt.Sprintf("m-%d", rnd.IntN(15))
			if live[id] != nil && rnd.IntN(2) == 0 {
				delete(live, id)
			} else {
				live[id] = member(id, 1+rnd.IntN(3))
				live[id].Meta = map[string]string{"n": fmt.Sprint(rnd.IntN(100))}
			}
			return cl.write("g", slices.Collect(maps.Values(live))...)
		}
		write()
		w, err := cl.client(cl.target(), fastProgress).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		g := &replica{}
		for range 300 {
			switch n := cl.nodes[rnd.IntN(3)]; rnd.IntN(12) {
			case 0:
				n.breakStreams()
			case 1:
				n.pin("g")
				n.breakStreams()
			case 2:
				n.unpin()
			case 3:
				cl.mu.Lock()
				cl.histories["g"].forgot = len(cl.histories["g"].versions) - 1
				cl.mu.Unlock()
			default:
				last := write()
				if rnd.IntN(2) == 0 {
					continue
				}
				for _, n := range cl.nodes {
					n.unpin()
				}
				for g.revision < last {
					g.take(t, next(t, w))
					if err := g.is(cl, "g"); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		t.Logf("%d events, %d resets", g.events, g.resets)
		if g.resets == g.events {
			t.Error("every event was a reset")
		}
	})
}

func TestSlowWatchHoldsTheNewestStateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(3)...)
		c := cl.client(cl.target(), fastProgress)
		w, err := c.Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		g := &replica{}
		g.take(t, next(t, w))
		r := openRing(t, c) // tells about how far the node's streams are
		var last uint64
		for i := range 5000 { // another member each time
			last = cl.write("g", member(fmt.Sprint("a-", i), 1), member("b", 1))
		}
		wait(t, r, last)
		for range 3 { // what a node says of its state comes after that state
			said := w.staleness.since()
			eventually(t, "the node says that its state is current", func() bool { return w.staleness.since().After(said) })
		}
		e := next(t, w)
		for e.Revision < last {
			g.take(t, e)
			e = next(t, w)
		}
		g.take(t, e)
		if err := g.is(cl, "g"); err != nil {
			t.Error(err)
		}
		if g.events > 1000 { // one or two, unless this stream is far behind the ring's
			t.Errorf("%d events", g.events)
		}
		cell := &groupCell{}
		for i := range 5000 {
			s := &step{revision: uint64(i + 1), put: []Member{{ID: fmt.Sprint(i)}}}
			if i > 0 {
				s.removed = []string{fmt.Sprint(i - 1)}
			}
			cell.apply(s)
			if n := len(cell.changed); n > 2+changesKept {
				t.Fatalf("%d names are held for a group of one", n)
			}
		}
		if e, ok := cell.event(); !ok || !e.Reset || len(e.Put) != 1 || e.Removed != nil {
			t.Errorf("%+v", e)
		}
	})
}

func TestWatchOfARebuiltCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		w, err := cl.client(cl.target(), fastProgress, WithAttemptTimeout(50*time.Millisecond)).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, w); !e.Reset || e.Rebuilt || len(e.Put) != 4 || e.From != 0 {
			t.Errorf("%+v", e)
		}
		cl.rebuild(10)
		cl.nodes[0].breakStreams()
		if e := next(t, w); !e.Unknown || !e.Rebuilt || e.Put != nil || e.Revision != 0 {
			t.Errorf("%+v", e)
		}
		cl.mu.Lock()
		cl.writeAtLocked("g", 12, memberIDs(3))
		cl.mu.Unlock()
		if e := next(t, w); !e.Reset || e.Unknown || e.Revision != 12 || len(e.Put) != 3 {
			t.Errorf("%+v", e)
		}
	})
}

// A rebuilt cluster may know a revision of the same number, and send what comes
// after it.
func TestWatchChecksTheFirstDeltaOfAResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(4)...)
		w, err := cl.client(cl.target(), fastProgress).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		g := &replica{}
		g.take(t, next(t, w))
		cl.nodes[0].srv.Stop()
		cl.mu.Lock()
		before := cl.histories["g"].versions[0]
		cl.histories = nil
		cl.writeAtLocked("g", before.revision, []*registrypb.Member{member("x", 1)})
		cl.histories["g"].versions[0].fingerprint = before.fingerprint // the node cannot tell
		cl.writeAtLocked("g", 110, []*registrypb.Member{member("x", 1), member("y", 1)})
		cl.mu.Unlock()
		cl.nodes[0] = cl.start("node-0", cl.nodes[0].addr)
		g.take(t, next(t, w))
		if err := g.is(cl, "g"); err != nil || g.resets != 2 {
			t.Errorf("%d resets, %v", g.resets, err)
		}
	})
}

func TestWatchOfAGroupThatComesToExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		w, err := cl.client(cl.target(), fastProgress).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, w); !e.Unknown || e.Rebuilt || e.Reset {
			t.Errorf("%+v", e)
		}
		cl.nodes[0].breakStreams() // nothing new
		cl.write("g", memberIDs(1)...)
		if e := next(t, w); !e.Reset || e.Unknown || len(e.Put) != 1 {
			t.Errorf("%+v", e)
		}
	})
}

// A group that a node has not heard of yet is not unknown.
func TestWatchBelievesTheLeaderAboutUnknownGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(2)...)
		cl.nodes[0].pinned = map[string]int{"g": 0}
		w, err := cl.client(cl.target(), fastProgress).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, w); e.Unknown || len(e.Put) != 2 {
			t.Errorf("%+v", e)
		}
	})
}

func TestWatchPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("a-1", memberIDs(1)...)
		cl.write("b-1", memberIDs(1)...)
		w, err := cl.client(cl.target(), fastProgress).WatchPrefix(t.Context(), "a-")
		if err != nil {
			t.Fatal(err)
		}
		groups := map[string]*replica{}
		until := func(group string, revision uint64) {
			t.Helper()
			for groups[group] == nil || groups[group].revision != revision {
				e := next(t, w)
				if groups[e.Group] == nil {
					groups[e.Group] = &replica{}
				}
				groups[e.Group].take(t, e)
				if !e.Unknown {
					if err := groups[e.Group].is(cl, e.Group); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		until("a-1", cl.write("a-1", memberIDs(2)...))
		until("a-2", cl.write("a-2", memberIDs(3)...))
		cl.nodes[0].breakStreams()
		until("a-1", cl.write("a-1", memberIDs(3)...))
		cl.mu.Lock()
		delete(cl.histories, "a-2")
		cl.mu.Unlock()
		cl.nodes[0].breakStreams()
		cl.nodes[1].breakStreams()
		until("a-2", 0)
		gone := groups["a-2"].events
		until("a-1", cl.write("a-1", memberIDs(4)...))
		if n := groups["a-2"].events; n != gone {
			t.Errorf("%d more events that the group does not exist", n-gone)
		}
		if groups["b-1"] != nil || len(groups["a-2"].members) != 0 {
			t.Errorf("%+v", groups)
		}
	})
}

func TestWatchGroupsAndNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		c := cl.client(cl.target(), fastProgress)
		w, err := c.WatchGroups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, w); !e.Reset || len(e.Groups) != 0 {
			t.Errorf("%+v", e)
		}
		cl.write("a", memberIDs(1)...)
		if e := next(t, w); e.Reset || len(e.Groups) != 1 || e.Groups[0].Name != "a" {
			t.Errorf("%+v", e)
		}
		cl.nodes[0].breakStreams() // the next list is the same
		cl.write("b", memberIDs(1)...)
		if e := next(t, w); e.Reset || len(e.Groups) != 1 || e.Groups[0].Name != "b" {
			t.Errorf("%+v", e)
		}
		cl.mu.Lock()
		delete(cl.histories, "a")
		cl.mu.Unlock()
		cl.nodes[0].breakStreams()
		cl.nodes[1].breakStreams()
		if e := next(t, w); !slices.Equal(e.Removed, []string{"a"}) {
			t.Errorf("%+v", e)
		}
		n, err := c.WatchNodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, n); len(e.Nodes) != 2 || e.Leader != "node-0" {
			t.Errorf("%+v", e)
		}
		cl.rebuild(5)
		cl.nodes[0].breakStreams()
		cl.nodes[1].breakStreams()
		if e := next(t, w); !e.Reset || !e.Rebuilt || e.Groups != nil {
			t.Errorf("%+v", e)
		}
		if e := next(t, n); !e.Rebuilt {
			t.Errorf("%+v", e)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(1)...)
		c := cl.client(cl.target(), fastProgress)
		ctx, cancel := context.WithCancel(t.Context())
		byContext, err := c.Watch(ctx, "g")
		if err != nil {
			t.Fatal(err)
		}
		byClose, _ := c.Watch(t.Context(), "g")
		byClient, _ := c.Watch(t.Context(), "g")
		waiting, stop := context.WithCancel(t.Context())
		stop()
		next(t, byClient)
		if _, err := byClient.Next(waiting); !errors.Is(err, context.Canceled) || byClient.Err() != nil {
			t.Error(err)
		}
		for e, err := range byClose.All(testContext(t)) {
			if err != nil || e.Revision == 0 {
				t.Error(e, err)
			}
			break
		}
		cancel()
		<-byContext.Done()
		if !errors.Is(byContext.Err(), context.Canceled) {
			t.Error(byContext.Err())
		}
		_ = byClose.Close()
		if _, err := byClose.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		_ = c.Close()
		if _, err := byClient.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := c.Watch(t.Context(), "g"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// What a node says is wrong with the request ends the watch.
func TestWatchThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.nodes[0].script(func(_ context.Context, method string, _ any) error {
			if method == "Watch" {
				return because(registrypb.ErrorDetail_INVALID_ARGUMENT)
			}
			return nil
		})
		w, err := cl.client(cl.target(), fastProgress).Watch(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Next(testContext(t)); !errors.Is(err, ErrInvalidArgument) {
			t.Error(err)
		}
	})
}

// Every event names the fingerprint, and the next stream goes on from it.
func TestWatchGoesOnFromWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		requests := make(chan *registrypb.WatchRequest, 10)
		cl.nodes[0].script(func(_ context.Context, method string, req any) error {
			if r, ok := req.(*registrypb.WatchRequest); ok && method == "Watch" {
				requests <- r
			}
			return nil
		})
		cl.write("g", memberIDs(2)...)
		w, err := cl.client(cl.target(), fastProgress).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		next(t, w)
		if r := <-requests; r.Revision != 0 || r.ClusterId != "" {
			t.Errorf("the first stream goes on from %v", r)
		}
		cl.write("g", memberIDs(3)...)
		last := cl.newest("g")
		if e := next(t, w); e.Reset || e.Revision != last.revision || e.Fingerprint != last.fingerprint {
			t.Errorf("%+v, want revision %d and fingerprint %016x", e, last.revision, last.fingerprint)
		}
		cl.nodes[0].breakStreams()
		if r := <-requests; r.Revision != last.revision || r.Fingerprint != last.fingerprint || r.ClusterId != cl.id {
			t.Errorf("the next stream goes on from %v, want %d, %016x", r, last.revision, last.fingerprint)
		}
		revision := cl.write("g", memberIDs(4)...)
		if e := next(t, w); e.Reset || e.Revision != revision || len(e.Put) != 1 {
			t.Errorf("after a new stream: %+v", e)
		}
	})
}

// An event that does not lead on from the one before is not taken.
func TestTrackerTakesNoDeltaOverAGap(t *testing.T) {
	tr := &tracker{c: &Client{}, group: "g"}
	in, err := inputsOf(fakeParams, nil)
	if err != nil {
		t.Fatal(err)
	}
	delta := func(from, revision uint64) *registrypb.WatchEvent {
		return &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Delta{Delta: &registrypb.GroupDelta{
			From: from, Revision: revision, Fingerprint: in.fingerprint(), Config: fakeConfig(),
		}}}
	}
	if _, err := tr.stepOf(t.Context(), delta(0, 5)); !errors.Is(err, errGap) {
		t.Errorf("without a state: %v", err)
	}
	tr.commit(&step{revision: 5})
	tr.inputs = in
	for _, d := range [][2]uint64{{4, 6}, {6, 7}, {5, 5}, {5, 4}} {
		if _, err := tr.stepOf(t.Context(), delta(d[0], d[1])); !errors.Is(err, errGap) {
			t.Errorf("%v at 5: %v", d, err)
		}
	}
	if s, err := tr.stepOf(t.Context(), delta(5, 6)); err != nil || s.revision != 6 {
		t.Errorf("%+v, %v", s, err)
	}
	tr.resync = true
	if _, err := tr.stepOf(t.Context(), delta(5, 6)); !errors.Is(err, errGap) {
		t.Errorf("when a snapshot is due: %v", err)
	}
}

// A lagging node is left for another, but not again and again.
func TestWatchLeavesANodeWithoutALeader(t *testing.T) {
	var asOf time.Time
	f := &follower{progress: func(at time.Time) { asOf = at }, c: &Client{cfg: newConfig(nil), pool: newPool([]string{"a:1", "b:1"})}}
	p := &registrypb.Progress{}
	s := &session{opened: time.Now(), moveAt: time.Now().Add(time.Hour)}
	for _, tt := range []struct {
		lag, since time.Duration
		want       error
	}{{0, time.Hour, nil}, {time.Minute, time.Second, nil}, {time.Minute, time.Minute, errLagging}} {
		s.opened = time.Now().Add(-tt.since)
		p = proto.CloneOf(p)
		p.Lag = durationpb.New(tt.lag)
		if err := f.onProgress(s, p); !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
		if d := time.Since(asOf) - tt.lag; d < 0 || d > 10*time.Second {
			t.Errorf("%+v: said to be current %v ago", tt, time.Since(asOf))
		}
	}
	s.ep, s.moveAt, p.Lag = f.c.pool.all[0], time.Now(), nil
	f.c.pool.current = f.c.pool.all[1]
	if err := f.onProgress(s, p); !errors.Is(err, errMoving) {
		t.Errorf("stays: %v", err)
	}
	if err := f.onProgress(s, p); err != nil {
		t.Errorf("moves at once: %v", err)
	}
}
