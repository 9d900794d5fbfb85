package sdk

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A cluster that was formed anew is another, whatever its revisions and
// fingerprints are: calls end, watches say so, the ring stays as it is.
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
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeWatched(t, 2)
				revision := cl.write("g", memberIDs(4)...)
				c := cl.client(cl.target(), fastProgress, outageSoon)
				r := openRing(t, c)
				var changes atomic.Int32
				r.OnChange(func(c RingChange) { changes.Add(1) })
				watches := watchAll(t, c)
				cl.become("fake/cluster-2", cl.nodes...)
				for what, nextErr := range watches {
					if err := nextErr(); !errors.Is(err, ErrWrongCluster) {
						t.Errorf("%s: %v", what, err)
					}
				}
				cl.mu.Lock()
				cl.id, cl.histories, cl.index = "cluster-2", nil, max(cl.index, revision+tt.later)
				cl.writeAtLocked("g", revision+tt.later, memberIDs(tt.members))
				cl.mu.Unlock()
				if _, err := c.Match(testContext(t), "g", "k", Linearizable()); !errors.Is(err, ErrWrongCluster) {
					t.Errorf("match: %v", err)
				}
				if v := r.View(); v.ClusterID() != "cluster-1" || v.Revision() != revision || changes.Load() != 0 || r.Err() != nil {
					t.Errorf("ring of %q at %d, %d changes, %v", v.ClusterID(), v.Revision(), changes.Load(), r.Err())
				}
				if v := openRing(t, cl.client(cl.target(), fastProgress)).View(); v.ClusterID() != "cluster-2" { // a new client
					t.Errorf("of cluster %q", v.ClusterID())
				}
			})
		})
	}
}

// outageSoon has a watch say soon that it gets nothing.
func outageSoon(c *config) { c.outageAfter = 20 * time.Millisecond }

// watchAll opens a watch of each kind, and waits for its first event. The
// functions return the error in the next one.
func watchAll(t *testing.T, c *Client) map[string]func() error {
	t.Helper()
	group, err1 := c.Watch(t.Context(), "g")
	prefix, err2 := c.WatchPrefix(t.Context(), "")
	groups, err3 := c.WatchGroups(t.Context())
	nodes, err4 := c.WatchNodes(t.Context())
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	next(t, group)
	next(t, prefix)
	next(t, groups)
	next(t, nodes)
	return map[string]func() error{
		"Watch": func() error { return next(t, group).Err }, "WatchPrefix": func() error { return next(t, prefix).Err },
		"WatchGroups": func() error { return next(t, groups).Err }, "WatchNodes": func() error { return next(t, nodes).Err },
	}
}

// A watch leaves a node of another cluster.
func TestSnapshotOfAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		cl.nodes[0].alter = func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
			if s := e.GetSnapshot(); s != nil && s.Revision > 103 {
				s.ClusterId = "other"
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
	})
}

// A member that a step leaves with another weight than the node has is noticed
// at that step, by a plain watch too.
func TestWatchDropsStatesWithoutTheirFingerprint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(4)...)
		var wrong atomic.Int32
		cl.nodes[0].alter = func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
			if d := e.GetDelta(); d != nil && len(d.Put) > 0 && d.Put[0].Id == "m-6" {
				d.Put[0].Weight++
				wrong.Add(1)
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
			g := &replica{}
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
		if wrong.Load() == 0 {
			t.Error("nothing was wrong")
		}
	})
}

// One group among many that never fits does not make a watch open one stream
// after the other without a pause.
func TestMismatchesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	})
}
