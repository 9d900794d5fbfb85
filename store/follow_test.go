package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// withTail makes a cluster whose first node is down and has a long tail of
// entries that were never committed, while the others went on with fewer and
// have only a snapshot of where the tail begins.
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
	if err := n1.ProposeUnheard(400, register("tail", "m", time.Minute)); err != nil {
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

// A node whose log goes beyond a snapshot that it was sent, with entries that
// conflict with what follows the snapshot, gets rid of them and follows.
func TestNodeWithATailThatConflictsFollows(t *testing.T) {
	t.Parallel()
	c := withTail(t)
	n1 := c.Start("n1", store.Formation{})
	for i := range 50 {
		c.Write(register("web", fmt.Sprint("n", i), time.Minute))
	}
	c.AwaitReady(n1)
	c.AwaitSame()
	n1.Kill()
	c.Write(register("web", "z", time.Minute))
	c.AwaitReady(c.Start("n1", store.Formation{})) // what it stored passes the checks of a start
	c.AwaitSame()
}
