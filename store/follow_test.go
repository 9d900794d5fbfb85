package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// withTail returns a cluster whose first node is down and has a long tail of uncommitted
// entries, while the others have fewer entries, and only a snapshot of the index where
// the tail begins.
func withTail(t *testing.T, edit ...func(*store.Config)) *storetest.Cluster {
	t.Helper()
	c := storetest.New(t, func(cfg *store.Config) {
		cfg.SnapshotThreshold, cfg.SnapshotInterval = 10, 50*time.Millisecond
		for _, f := range edit {
			f(cfg)
		}
	})
	c.Three()
	n1 := leading(t, c, "n1")
	c.Write(register("web", "a", time.Minute))
	c.AwaitSame()
	c.Net.Isolate(n1.Bind)
	if err := n1.ProposeAsync(400, register("tail", "m", time.Minute)); err != nil {
		t.Fatal(err)
	}
	c.LeaderOf("n2", "n3")
	_, tail := n1.LogRange()
	n1.Kill()
	for i := range 90 {
		c.Write(register("web", fmt.Sprint("m", i), time.Minute))
	}
	if at := c.Leader().State().Index(); at+60 > tail {
		t.Fatalf("the tail ends at %d, and the others are at %d", tail, at)
	}
	return c
}

// A node whose log goes beyond an installed snapshot, with entries that conflict with
// those after the snapshot, removes them and follows.
func TestNodeWithAConflictingTailFollows(t *testing.T) {
	t.Parallel()
	c := withTail(t)
	n1 := c.Start("n1", store.Formation{})
	for i := range 50 {
		c.Write(register("web", fmt.Sprint("n", i), time.Minute))
	}
	c.AwaitReady(n1)
	c.AwaitSame()
	c.Await("an answer", func() bool { return n1.Serving() == nil })
	n1.Kill()
	c.Write(register("web", "z", time.Minute))
	c.AwaitReady(c.Start("n1", store.Formation{})) // its log passes the verification at start
	c.AwaitSame()
}

// stalledObserver blocks the state machine once a group exists.
type stalledObserver struct {
	group   string
	release chan struct{}
}

func (o stalledObserver) Applied(u *fsm.Update) {
	if u.State.Group(o.group) != nil {
		<-o.release
	}
}

func (stalledObserver) Restored(*fsm.State) {}

// A node that receives heartbeats and applies nothing is not ready, and its lag grows.
func TestNodeThatDoesNotFollowIsNotReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := storetest.New(t)
		c.Three(func(cfg *store.Config) {
			if cfg.ID == "n3" {
				cfg.Observers = []fsm.Observer{stalledObserver{"stall", release}}
			}
		})
		t.Cleanup(sync.OnceFunc(func() { close(release) }))
		leading(t, c, "n1")
		n := c.Node("n3")
		c.Write(register("stall", "a", time.Minute))
		c.Write(register("web", "a", time.Minute))
		c.Await("the node to notice", func() bool { return errors.Is(n.Serving(), store.ErrNotReady) })
		if st := n.Status(); st.Ready || len(st.Alarms) == 0 || st.Lag < 3*time.Second {
			t.Errorf("ready %v, alarms %q, lag %v", st.Ready, st.Alarms, st.Lag)
		}
		release <- struct{}{} // each time it blocks
		c.Await("the node to follow again", func() bool {
			select {
			case release <- struct{}{}:
			default:
			}
			return n.Serving() == nil && n.Lag() < time.Second
		})
	})
}

// Snapshots without an entry in between are an alarm; the next entry ends it.
func TestSnapshotsWithoutEntriesAreAnAlarm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		n := follower(c)
		answering := n.Answering()
		for i := range store.SnapshotLoop {
			if err := n.Serving(); err != nil {
				t.Errorf("after %d snapshots: %v", i, err)
			}
			n.GotSnapshot(uint64(i))
		}
		if err := n.Serving(); !errors.Is(err, store.ErrNotReady) || len(n.Status().Alarms) == 0 {
			t.Errorf("after %d: %v", store.SnapshotLoop, err)
		}
		if err := context.Cause(answering); !errors.Is(err, store.ErrNotReady) {
			t.Errorf("what began before goes on: %v", err)
		}
		c.Write(register("web", "a", time.Minute))
		c.Await("the end of the alarm", func() bool { return n.Serving() == nil })
	})
}
