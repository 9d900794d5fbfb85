package sdk

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A call is repeated under its request id, so what the second attempt finds is
// what there was.
func TestDeleteGroupIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := func(n *fakeNode, r registrypb.ErrorDetail_Reason) {
			n.script(func(context.Context, string, any) error { return because(r) })
		}
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		if n, err := c.DeleteGroup(testContext(t), "g", GroupDeletion{Force: true}); n != 2 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		answer(cl.nodes[0], registrypb.ErrorDetail_UNKNOWN_GROUP)
		if _, err := c.DeleteGroup(testContext(t), "g", GroupDeletion{}); !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("one that does not exist: %v", err)
		}
		answer(cl.nodes[0], registrypb.ErrorDetail_GROUP_NOT_EMPTY)
		if _, err := c.DeleteGroup(testContext(t), "g", GroupDeletion{}); !errors.Is(err, ErrGroupNotEmpty) {
			t.Errorf("one with members: %v", err)
		}
		answer(cl.nodes[0], registrypb.ErrorDetail_OUTCOME_UNKNOWN)
		answer(cl.nodes[1], registrypb.ErrorDetail_UNKNOWN_GROUP)
		if n, err := c.DeleteGroup(testContext(t), "g", GroupDeletion{}); n != 0 || !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("after an unknown outcome: %d, %v", n, err)
		}
	})
}

// A deletion is reported as one, not as a lost log, and a node that is behind
// it does not bring the group back.
func TestWatchSeesADeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(2)...)
		cl.nodes[1].pin("g")
		w, err := cl.client(cl.target(), fastProgress).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, w); len(e.Put) != 2 {
			t.Errorf("%+v", e)
		}
		deleted := cl.delete("g")
		if e := next(t, w); !e.Unknown || e.Rebuilt || e.Reset || e.Index != deleted {
			t.Errorf("got %+v, want that it is unknown at %d", e, deleted)
		}
		asked := cl.nodes[1].count("Watch")
		cl.nodes[0].breakStreams()
		eventually(t, "the node that is behind is asked", func() bool { return cl.nodes[1].count("Watch") > asked })
		again := cl.write("g", memberIDs(1)...)
		if e := next(t, w); !e.Reset || e.Rebuilt || e.Revision != again || len(e.Put) != 1 {
			t.Errorf("got %+v, want the group as it was made again at %d", e, again)
		}
	})
}

// The same for one that watches many groups, of which it knows the deleted one no more.
func TestWatchPrefixSeesADeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("a-1", memberIDs(2)...)
		cl.write("a-2", memberIDs(2)...)
		cl.nodes[1].pin("a-1")
		w, err := cl.client(cl.target(), fastProgress).WatchPrefix(t.Context(), "a-")
		if err != nil {
			t.Fatal(err)
		}
		next(t, w)
		next(t, w)
		deleted := cl.delete("a-1")
		if e := next(t, w); e.Group != "a-1" || !e.Unknown || e.Rebuilt || e.Index != deleted {
			t.Errorf("got %+v, want that a-1 is unknown at %d", e, deleted)
		}
		asked := cl.nodes[1].count("Watch")
		cl.nodes[0].breakStreams()
		eventually(t, "the node that is behind is asked", func() bool { return cl.nodes[1].count("Watch") > asked })
		cl.nodes[1].unpin()
		again := cl.write("a-1", memberIDs(1)...)
		if e := next(t, w); e.Group != "a-1" || !e.Reset || e.Rebuilt || e.Revision != again {
			t.Errorf("got %+v, want a-1 as it was made again at %d", e, again)
		}
	})
}

// A group is created again while the leader is asked about one that a node which is
// behind shows: what that node has was deleted.
func TestWatchPrefixSeesACreationAfterADeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("a-1", memberIDs(2)...)
		cl.write("a-2", memberIDs(2)...)
		cl.nodes[1].pin("a-1")
		w, err := cl.client(cl.target(), fastProgress).WatchPrefix(t.Context(), "a-")
		if err != nil {
			t.Fatal(err)
		}
		next(t, w)
		next(t, w)
		cl.delete("a-1")
		if e := next(t, w); e.Group != "a-1" || !e.Unknown {
			t.Errorf("got %+v, want that a-1 is unknown", e)
		}
		var created atomic.Uint64
		var once sync.Once
		for _, n := range cl.nodes {
			n.script(func(_ context.Context, _ string, req any) error {
				if r, ok := req.(*registrypb.MembersRequest); ok && r.Group == "a-1" {
					once.Do(func() { created.Store(cl.write("a-1", memberIDs(1)...)) })
				}
				return nil
			})
		}
		cl.nodes[0].breakStreams()
		if e := next(t, w); e.Group != "a-1" || !e.Reset || e.Rebuilt || e.Revision != created.Load() {
			t.Errorf("got %+v, want a-1 as it was made again at %d", e, created.Load())
		}
	})
}

// Groups that are deleted while a resumed watch reads the list of groups page by page
// are shown as of the page that they are missing on, not as of the first one, at
// which they still existed. One that is missing on the last page is no exception.
func TestWatchPrefixDatesADeletionByItsPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		for _, group := range []string{"a-1", "a-2", "a-3", "a-4"} {
			cl.write(group, memberIDs(1)...)
		}
		cl.cutTo(1)
		w, err := cl.client(cl.target(), fastProgress).WatchPrefix(t.Context(), "a-")
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			next(t, w)
		}
		deleted := map[string]uint64{}
		cl.nodes[0].script(func(_ context.Context, _ string, req any) error {
			r, ok := req.(*registrypb.GroupsRequest)
			if group := map[string]string{"a-1": "a-2", "a-3": "a-4"}[r.GetPageToken()]; ok && group != "" && deleted[group] == 0 {
				deleted[group] = cl.delete(group)
			}
			return nil
		})
		cl.nodes[0].breakStreams()
		for range 2 {
			e := next(t, w)
			if !e.Unknown || e.Rebuilt || e.Index != deleted[e.Group] {
				t.Errorf("got %+v, want that it is unknown at %d", e, deleted[e.Group])
			}
		}
	})
}

// The cluster loses its log while a resumed watch reads the list of groups: its stream
// began before, and still has the groups that are gone. They are not shown again.
func TestWatchPrefixLeavesAStreamFromBeforeALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("a-1", memberIDs(1)...)
		cl.write("a-2", memberIDs(1)...)
		w, err := cl.client(cl.target(), fastProgress).WatchPrefix(t.Context(), "a-")
		if err != nil {
			t.Fatal(err)
		}
		next(t, w)
		next(t, w)
		var once sync.Once
		cl.nodes[0].script(func(_ context.Context, _ string, req any) error {
			if _, ok := req.(*registrypb.GroupsRequest); ok {
				once.Do(func() { cl.rebuild(1) })
			}
			return nil
		})
		cl.nodes[0].breakStreams()
		for range 2 {
			if e := next(t, w); !e.Unknown || !e.Rebuilt {
				t.Errorf("got %+v, want that the group is gone with the log", e)
			}
		}
		synctest.Wait()
		cl.write("a-3", memberIDs(1)...)
		if e := next(t, w); e.Group != "a-3" || !e.Reset {
			t.Errorf("got %+v, want the new group", e)
		}
	})
}

// A ring of a deleted group serves no keys, and is current; made again, it goes on
// at a later revision.
func TestRingOfADeletedGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		first := cl.write("g", memberIDs(3)...)
		r := openRing(t, cl.client(cl.target(), fastProgress))
		wait(t, r, first)
		changes := make(chan RingChange, 8)
		r.OnChange(func(c RingChange) { changes <- c })
		deleted := cl.delete("g")
		wait(t, r, deleted)
		if _, err := r.Match("k"); !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("after the deletion: %v", err)
		}
		confirmed := r.staleness.since()
		eventually(t, "the ring is confirmed again", func() bool { return r.staleness.since().After(confirmed) })
		if s := r.Stats(); s.Rebuilds != 0 || len(r.Members()) != 0 || r.Revision() != deleted {
			t.Errorf("%+v, %d members at %d", s, len(r.Members()), r.Revision())
		}
		if c := <-changes; c.From != first || c.To != deleted || c.Rebuilt || len(c.Moved) == 0 {
			t.Errorf("change %+v", c)
		}
		again := cl.write("g", memberIDs(1)...)
		wait(t, r, again)
		if m, err := r.Match("k"); err != nil || m.ID != "m-0" || again <= deleted {
			t.Errorf("made again at %d: %v, %v", again, m, err)
		}
	})
}
