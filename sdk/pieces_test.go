package sdk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// cutTo sets how many elements a page and a piece have.
func (cl *fakeCluster) cutTo(n int) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.cut = n
}

// pieces takes an event to pieces, as a node does.
func (cl *fakeCluster) pieces(e *registrypb.WatchEvent) (out []*registrypb.WatchEvent) {
	cl.mu.Lock()
	cut := cl.cut
	cl.mu.Unlock()
	if cut == 0 {
		return []*registrypb.WatchEvent{e}
	}
	e = proto.CloneOf(e) // which may be the history's own
	for more := true; more; {
		p := proto.CloneOf(e)
		switch w := p.Event.(type) {
		case *registrypb.WatchEvent_Snapshot:
			rest := e.GetSnapshot()
			w.Snapshot.Members, rest.Members, more = first(rest.Members, cut)
			w.Snapshot.More = proto.Bool(more)
		case *registrypb.WatchEvent_Delta:
			rest := e.GetDelta()
			var puts, gone bool
			w.Delta.Put, rest.Put, puts = first(rest.Put, cut)
			w.Delta.Removed, rest.Removed, gone = first(rest.Removed, cut)
			more = puts || gone
			w.Delta.More = proto.Bool(more)
		case *registrypb.WatchEvent_Groups:
			rest := e.GetGroups()
			w.Groups.Groups, rest.Groups, more = first(rest.Groups, cut)
			w.Groups.More = proto.Bool(more)
		default:
			more = false
		}
		out = append(out, p)
	}
	return out
}

func first[T any](list []T, n int) (head, rest []T, more bool) {
	n = min(n, len(list))
	return list[:n:n], list[n:], n < len(list)
}

// membersPage cuts a page off an answer; a page of another revision than the group
// has now is refused.
func (cl *fakeCluster) membersPage(req *registrypb.MembersRequest, r *registrypb.MembersResponse) (*registrypb.MembersResponse, error) {
	cl.mu.Lock()
	cut := cl.cut
	cl.mu.Unlock()
	if cut == 0 || req.GetPageSize() == 0 {
		return r, nil
	}
	at := uint64(0)
	if token := req.GetPageToken(); token != "" {
		var revision uint64
		if _, err := fmt.Sscanf(token, "%d/%d", &revision, &at); err != nil || revision != r.Receipt.Revision {
			return nil, because(registrypb.ErrorDetail_REVISION_MISMATCH)
		}
	}
	var more bool
	r.Members, _, more = first(r.Members[at:], cut)
	if more {
		r.NextPageToken = fmt.Sprintf("%d/%d", r.Receipt.Revision, int(at)+cut)
	}
	return r, nil
}

// groupsPageLocked cuts a page off the list of groups, which begins after a name.
func (cl *fakeCluster) groupsPageLocked(req *registrypb.GroupsRequest, r *registrypb.GroupsResponse) *registrypb.GroupsResponse {
	slices.SortFunc(r.Groups, func(a, b *registrypb.Group) int { return cmp.Compare(a.Name, b.Name) })
	r.Groups = slices.DeleteFunc(r.Groups, func(g *registrypb.Group) bool { return g.Name <= req.GetPageToken() })
	if cl.cut == 0 || len(r.Groups) <= cl.cut {
		return r
	}
	r.Groups = r.Groups[:cl.cut]
	r.NextPageToken = r.Groups[cl.cut-1].Name
	return r
}

// Lists that come in pages and pieces are the same as if they came whole.
func TestPagesAndPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.cutTo(3)
		revision := cl.write("g", memberIDs(10)...)
		c := cl.client(cl.target(), fastProgress)
		g, ms, err := c.Group(t.Context(), "g")
		if err != nil || g.Members != 10 || g.Revision != revision || len(ms) != 10 {
			t.Fatalf("%+v, %d members, %v", g, len(ms), err)
		}
		if !slices.IsSortedFunc(ms, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) }) {
			t.Errorf("%v", ms)
		}
		r := openRing(t, c)
		one, err := c.Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		all, err := c.WatchPrefix(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		watches := map[string]*Watch[GroupEvent]{"Watch": one, "WatchPrefix": all}
		for name, w := range watches {
			if e := next(t, w); !e.Reset || len(e.Put) != 10 || e.Revision != revision {
				t.Errorf("%s: %+v", name, e)
			}
		}
		last := cl.write("g", memberIDs(20)[5:]...)
		for name, w := range watches {
			if e := next(t, w); e.Reset && name == "Watch" || e.Revision != last || len(e.Put) < 10 {
				t.Errorf("%s: %+v", name, e)
			}
		}
		wait(t, r, last)
		if len(r.Members()) != 15 || r.Stats().Mismatches != 0 {
			t.Errorf("a ring of %d members, %+v", len(r.Members()), r.Stats())
		}
		for i := range 10 {
			cl.write(fmt.Sprintf("h-%d", i), memberIDs(1)...)
		}
		groups, err := c.WatchGroups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, groups); len(e.Groups) != 11 {
			t.Errorf("%d groups", len(e.Groups))
		}
	})
}

// A list whose revision is gone before its last page is begun again.
func TestPagesOfAGroupThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.cutTo(3)
		cl.write("g", memberIDs(10)...)
		c := cl.client(cl.target())
		var changes atomic.Int64 // that are still to come, each before a second page
		changes.Store(2)
		cl.nodes[0].script(func(_ context.Context, method string, req any) error {
			if r, ok := req.(*registrypb.MembersRequest); ok && r.PageToken != "" && changes.Load() > 0 {
				cl.write("g", memberIDs(10+int(changes.Add(-1)))...)
			}
			return nil
		})
		if ms, err := c.Members(t.Context(), "g"); err != nil || len(ms) != 10 {
			t.Errorf("%d members, %v", len(ms), err)
		}
		changes.Store(100)
		if _, err := c.Members(t.Context(), "g"); !errors.Is(err, ErrRevisionMismatch) {
			t.Errorf("a group that changes all the time: %v", err)
		}
	})
}

// A list is begun again as well when the node does not remember the revision that
// its first page was of, though the group has not changed; a few times, and no more.
func TestPagesThatANodeForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.cutTo(3)
		cl.write("g", memberIDs(10)...)
		c := cl.client(cl.target())
		var begun, forgets int
		cl.nodes[0].script(func(_ context.Context, method string, req any) error {
			r, ok := req.(*registrypb.MembersRequest)
			switch {
			case ok && r.PageToken == "":
				begun++
			case ok && forgets > 0:
				forgets--
				return because(registrypb.ErrorDetail_REVISION_MISMATCH)
			}
			return nil
		})
		forgets = pageTries - 1
		if ms, err := c.Members(t.Context(), "g"); err != nil || len(ms) != 10 || begun != pageTries {
			t.Errorf("%d members, %v, begun %d times", len(ms), err, begun)
		}
		begun, forgets = 0, 1000
		if _, err := c.Members(t.Context(), "g"); !errors.Is(err, ErrRevisionMismatch) || begun != pageTries {
			t.Errorf("a node that forgets all the time: %v, begun %d times", err, begun)
		}
	})
}

// Pieces that do not belong together are a gap.
func TestPiecesThatDoNotFit(t *testing.T) {
	snapshot := func(group string, revision uint64, more bool) *registrypb.WatchEvent {
		return &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: &registrypb.GroupSnapshot{
			Group: group, Revision: revision, Members: memberIDs(1), More: proto.Bool(more),
		}}}
	}
	progress := &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{}}}
	for name, e := range map[string]*registrypb.WatchEvent{
		"another group": snapshot("h", 1, false), "another revision": snapshot("g", 2, false), "progress": progress,
	} {
		var a assembly
		if got, err := a.add(progress); got != progress || err != nil {
			t.Errorf("a whole event: %v, %v", got, err)
		}
		if got, err := a.add(snapshot("g", 1, true)); got != nil || err != nil {
			t.Errorf("the first piece: %v, %v", got, err)
		}
		if _, err := a.add(e); !errors.Is(err, errGap) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// More owners than one answer may carry are asked for in smaller batches.
func TestMatchManyOfLargeMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		if _, err := c.Register(t.Context(), Service{Group: "g", ID: "a", Addr: "a:80"}); err != nil {
			t.Fatal(err)
		}
		cl.nodes[0].script(func(_ context.Context, method string, req any) error {
			if r, ok := req.(*registrypb.MatchManyRequest); ok && len(r.Keys) > 70 {
				return failing(codes.InvalidArgument, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_INVALID_ARGUMENT, Field: "keys"})
			}
			return nil
		})
		keys := make([]string, 1500)
		for i := range keys {
			keys[i] = fmt.Sprint(i)
		}
		if ms, err := c.MatchMany(t.Context(), "g", keys); err != nil || len(ms) != len(keys) {
			t.Errorf("%d owners, %v", len(ms), err)
		}
	})
}
