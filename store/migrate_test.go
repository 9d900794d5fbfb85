package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/storetest"
)

const smallSegments = 2 << 10

// moves are both ways.
var moves = map[string]struct{ from, to string }{
	"to segments": {raftlog.Bolt, raftlog.WAL},
	"to raft.db":  {raftlog.WAL, raftlog.Bolt},
}

// startsFrom starts a node on a copy of a directory, with the expected kind of log, and
// compares its members.
func startsFrom(t *testing.T, dir, kind string, want uint64) {
	t.Helper()
	c := storetest.New(t, few, logKinds[kind], func(cfg *store.Config) { cfg.ElectionTimeout = 50 * time.Millisecond })
	if err := os.CopyFS(c.DirOf("n1"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from what the first left
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		if got := content(n); got != want {
			t.Errorf("members have digest %016x, want %016x", got, want)
		}
		c.Write(register("web", "m1", time.Minute))
		want = content(n)
		n.Stop()
	}
	if entries := boltEntries(t, c.DirOf("n1")); (entries > 0) != (kind == raftlog.Bolt) {
		t.Errorf("the log is in %s, and raft.db has %d entries", kind, entries)
	}
	_, err := os.Stat(filepath.Join(c.DirOf("n1"), "wal"))
	if isThere := err == nil; isThere != (kind == raftlog.WAL) {
		t.Errorf("the log is in %s, and there are segments: %v", kind, isThere)
	}
}

// copyOpen copies a directory with an open log. raft-wal creates the next segment in the
// background, so the copy is repeated if files changed meanwhile.
func copyOpen(t *testing.T, dir string) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		before, to := listing(t, dir), t.TempDir()
		err := os.CopyFS(to, os.DirFS(dir))
		if err == nil && maps.Equal(before, listing(t, dir)) {
			return to
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s changes all the time: %v", dir, err)
		}
	}
}

// listing returns size and time of change of each file below dir.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			files[path] = fmt.Sprint(info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err != nil {
		files[err.Error()] = "changed while it was listed"
	}
	return files
}

func boltEntries(t *testing.T, dir string) (entries int) {
	t.Helper()
	editLog(t, dir, func(logs *bbolt.Bucket) error {
		entries = logs.Stats().KeyN
		return nil
	})
	return entries
}

// A move that is interrupted at any step leaves the old log or the new one, and can be
// repeated.
func TestMovedLogIsCompleteAtEveryStep(t *testing.T) {
	t.Parallel()
	for name, move := range moves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := storetest.New(t, logKinds[move.from], func(cfg *store.Config) { cfg.SnapshotThreshold = 1 << 10 })
			n := c.Start("n1", store.Formation{})
			c.AwaitReady(n)
			for i := range 60 {
				c.Write(register("web", "m"+strings.Repeat("x", i), time.Minute))
			}
			want := content(n)
			n.Stop()

			at := move.from
			var steps, kinds, copies []string
			done, err := store.MigrateLogSteps(n.Dir, move.to, smallSegments, func(what string) {
				if what == "switched" {
					at = move.to
				}
				steps, kinds, copies = append(steps, what), append(kinds, at), append(copies, copyOpen(t, n.Dir))
			})
			if err != nil || done.From != move.from || done.To != move.to || done.Last < 60 {
				t.Fatalf("%+v, %v", done, err)
			}
			if len(steps) < 7 {
				t.Fatalf("steps %v", steps)
			}
			startsFrom(t, n.Dir, move.to, want)
			for i, dir := range copies {
				t.Run(steps[i], func(t *testing.T) {
					startsFrom(t, dir, kinds[i], want)
					again, err := store.MigrateLogSteps(dir, move.to, smallSegments, func(string) {})
					if err != nil || again.Last != done.Last {
						t.Fatalf("again: %+v, %v", again, err)
					}
					startsFrom(t, dir, move.to, want)
				})
			}
		})
	}
}

// The rest of an older move in raft.db does not become part of the log.
func TestMoveToRaftDBBeginsEmpty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, logKinds[raftlog.WAL])
		n := written(t, c)
		want := content(n)
		editLog(t, n.Dir, func(logs *bbolt.Bucket) error {
			return logs.Put(binary.BigEndian.AppendUint64(nil, 1000), []byte("left"))
		})
		if _, err := store.MigrateLog(n.Dir, raftlog.Bolt, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		startsFrom(t, n.Dir, raftlog.Bolt, want)
	})
}

// A node with a moved log stays a member, also after its log is moved back.
func TestNodeWithAMovedLogStaysAMember(t *testing.T) {
	t.Parallel()
	for name, move := range moves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := storetest.New(t, few, func(cfg *store.Config) { store.SegmentSize(cfg, smallSegments) })
			c.Three(func(cfg *store.Config) { cfg.LogStore = move.from })
			n := follower(c)
			for _, to := range []string{move.to, move.from, move.to} {
				for i := range 20 {
					c.Write(register("web", to+strings.Repeat("x", i), time.Minute))
				}
				c.AwaitSame()
				n.Stop()
				if _, err := store.MigrateLogSteps(n.Dir, to, smallSegments, func(string) {}); err != nil {
					t.Fatal(err)
				}
				c.Write(register("web", "while it was away", time.Minute))
				n = c.Start(n.ID, store.Formation{}, func(cfg *store.Config) { cfg.LogStore = to })
				c.AwaitSame()
			}
		})
	}
}

func TestLogIsNotMovedWhileTheNodeRuns(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, kind)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		for _, to := range []string{raftlog.Bolt, raftlog.WAL} {
			_, err := store.MigrateLog(n.Dir, to, slog.New(slog.DiscardHandler))
			if !errors.Is(err, store.ErrDataDir) || !errors.Is(err, store.ErrInUse) {
				t.Errorf("to %s: %v", to, err)
			}
		}
		c.Write(register("web", "a", time.Minute))
	})
}

// A log that a node would not start from is not moved.
func TestDamagedLogIsNotMoved(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		from, to string
		damage   logDamage
	}{
		"raft.db":  {raftlog.Bolt, raftlog.WAL, boltDamages["last entry lost"]},
		"segments": {raftlog.WAL, raftlog.Bolt, walDamages["tail cut"]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := storetest.New(t, few, logKinds[tc.from])
			n := written(t, c)
			tc.damage(t, n, "")
			_, err := store.MigrateLog(n.Dir, tc.to, slog.New(slog.DiscardHandler))
			wantUnusable(t, err)
			_, err = c.TryOpen("n1")
			wantUnusable(t, err)
		})
	}
}

func TestMoveWithoutALog(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"missing": filepath.Join(t.TempDir(), "x"), "empty": t.TempDir()} {
		_, err := store.MigrateLog(dir, raftlog.WAL, slog.New(slog.DiscardHandler))
		if !errors.Is(err, store.ErrDataDir) || !strings.Contains(err.Error(), "not a node's") {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: it created %v", name, left)
		}
	}
}
