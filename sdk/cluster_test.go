package sdk

import (
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// reform starts the cluster over under another id, with one version of a group.
func (cl *fakeCluster) reform(id, group string, revision uint64, members []*registrypb.Member) {
	cl.mu.Lock()
	cl.id, cl.histories, cl.index = id, nil, max(cl.index, revision)
	cl.writeAtLocked(group, revision, members)
	cl.mu.Unlock()
	for _, n := range cl.nodes {
		n.breakStreams()
	}
}

// A cluster that was formed anew is not taken for the one before, whatever its
// revisions and fingerprints are.
func TestClusterThatWasFormedAnew(t *testing.T) {
	for name, tt := range map[string]struct {
		later   uint64 // how much further the new one's revision is
		members int
	}{
		"further":                           {50, 6},
		"at the same revision, same ring":   {0, 4},
		"at the same revision, other ring":  {0, 3},
		"further on, with the same members": {7, 4},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newFakeWatched(t, 2)
			revision := cl.write("g", memberIDs(4)...)
			c := cl.client(cl.target(), fastProgress)
			r := openRing(t, c)
			changes := make(chan RingChange, 8)
			r.OnChange(func(c RingChange) { changes <- c })
			w, err := c.Watch(t.Context(), "g")
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.WatchPrefix(t.Context(), "g")
			if err != nil {
				t.Fatal(err)
			}
			next(t, w)
			next(t, p)
			if v := r.View(); v.ClusterID() != "cluster-1" {
				t.Errorf("the ring is of cluster %q", v.ClusterID())
			}
			cl.reform("cluster-2", "g", revision+tt.later, memberIDs(tt.members))
			for what, w := range map[string]*Watch[GroupEvent]{"Watch": w, "WatchPrefix": p} {
				if e := next(t, w); !e.Rebuilt || !e.Reset || e.Revision != revision+tt.later || len(e.Put) != tt.members {
					t.Errorf("%s: %+v", what, e)
				}
			}
			if c := <-changes; !c.Rebuilt || c.After.ClusterID() != "cluster-2" || c.To != revision+tt.later {
				t.Errorf("%+v", c)
			}
			if n := r.Stats().Rebuilds; n != 1 {
				t.Errorf("%d rebuilds", n)
			}
			last := cl.write("g", memberIDs(8)...) // and it is followed as any
			wait(t, r, last)
			for e := next(t, w); e.Revision != last; e = next(t, w) {
			}
		})
	}
}

// A node that still is of the cluster before, or of a strange one, is left.
func TestSnapshotOfAStrangeCluster(t *testing.T) {
	cl := newFakeWatched(t, 2)
	cl.write("g", memberIDs(4)...)
	cl.nodes[0].alter = func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
		if s := e.GetSnapshot(); s != nil && s.Revision > 103 {
			s.ClusterId = "strange"
		}
		return e
	}
	cl.mu.Lock()
	cl.histories["g"].forgot = 1000 // every stream starts with a snapshot
	cl.mu.Unlock()
	r := openRing(t, cl.client(cl.target(), fastProgress))
	wait(t, r, cl.write("g", memberIDs(5)...)) // a delta, or from the other node
	cl.nodes[0].breakStreams()
	wait(t, r, cl.write("g", memberIDs(6)...))
	if v := r.View(); v.ClusterID() != "cluster-1" || r.Stats().Rebuilds != 0 {
		t.Errorf("of cluster %q, %+v", v.ClusterID(), r.Stats())
	}
}

// A member that a step leaves with another weight than the node has is noticed
// at that step, by a plain watch too.
func TestWatchThrowsAwayWhatDoesNotFit(t *testing.T) {
	cl := newFakeWatched(t, 1)
	cl.write("g", memberIDs(4)...)
	wrong := 0
	cl.nodes[0].alter = func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
		if d := e.GetDelta(); d != nil && len(d.Put) > 0 && d.Put[0].Id == "m-6" {
			d.Put[0].Weight++
			wrong++
		}
		return e
	}
	c := cl.client(cl.target(), fastProgress)
	one, err := c.Watch(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.WatchPrefix(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*Watch[GroupEvent]{"Watch": one, "WatchPrefix": all} {
		g := &told{}
		for n := 5; n <= 9; n++ {
			last := cl.write("g", memberIDs(n)...)
			for g.revision < last {
				g.take(t, next(t, w))
				if err := g.is(cl, "g"); err != nil {
					t.Fatal(name, err)
				}
			}
		}
	}
	if wrong == 0 {
		t.Error("nothing was wrong")
	}
}

// One group among many that never fits does not make a watch open one stream
// after the other without a pause.
func TestMismatchesArePaced(t *testing.T) {
	cl := newFakeWatched(t, 1)
	cl.write("a", memberIDs(2)...)
	cl.write("b", memberIDs(3)...)
	cl.nodes[0].alter = func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
		if s := e.GetSnapshot(); s.GetGroup() == "b" {
			s.Fingerprint++
		}
		return e
	}
	began := time.Now()
	w, err := cl.client(cl.target(), fastProgress).WatchPrefix(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Group != "a" || len(e.Put) != 2 {
		t.Errorf("%+v", e)
	}
	eventually(t, "streams are opened again", func() bool { return cl.nodes[0].count("Watch") >= 20 })
	if took := time.Since(began); took < 100*time.Millisecond { // the pauses are 2.5 ms at least, and grow to 25 ms
		t.Errorf("20 streams were opened within %v", took)
	}
}
