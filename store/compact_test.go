package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/storetest"
)

// A compaction shrinks raft.db, also when an earlier one was killed, and the node starts
// from what it left.
func TestCompactedLogIsComplete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, few, logKinds[raftlog.Bolt])
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		if _, _, err := store.CompactLog(n.Dir); !errors.Is(err, store.ErrInUse) {
			t.Errorf("while it runs: %v", err)
		}
		for i := range 120 {
			c.Write(register("web", "m"+strings.Repeat("x", i), time.Minute))
		}
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
		want := content(n)
		n.Stop()
		left := filepath.Join(n.Dir, "raft.db.tmp1")
		if err := os.WriteFile(left, []byte("killed"), 0o600); err != nil {
			t.Fatal(err)
		}
		startsFrom(t, n.Dir, raftlog.Bolt, want) // on a copy
		before, after, err := store.CompactLog(n.Dir)
		if err != nil || after >= before {
			t.Errorf("%d bytes, then %d; %v", before, after, err)
		}
		if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", left, err)
		}
		startsFrom(t, n.Dir, raftlog.Bolt, want)
	})
}

func TestSegmentsAreNotCompacted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, few, logKinds[raftlog.WAL])
		n := written(t, c)
		if _, _, err := store.CompactLog(n.Dir); !errors.Is(err, store.ErrNothingToCompact) {
			t.Errorf("%v", err)
		}
		c.AwaitReady(c.Start("n1", store.Formation{}))
	})
}
