package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/backup"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/storetest"
)

// fileOf is a snapshot file of a node.
func fileOf(t *testing.T, n *storetest.Node) (data []byte, file *backup.File) {
	t.Helper()
	var out bytes.Buffer
	if err := backup.Write(&out, n.State(), n.About()); err != nil {
		t.Fatal(err)
	}
	file, err := backup.Read(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), file
}

// staged reports whether a node has parts of a restoration.
func staged(n *storetest.Node) bool { return n.State().Digest() != n.State().WithoutStaged().Digest() }

// TestRestoreEndsWithItsLeader: what a leader has staged is dropped by the next one, on
// all nodes, also on one that got it with raft's snapshot.
func TestRestoreEndsWithItsLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		for i := range 200 {
			c.Write(register("web", fmt.Sprintf("m%d", i), time.Hour))
		}
		leader := c.Leader()
		before := leader.State().MemberCount()
		_, file := fileOf(t, leader)
		c.Write(register("web", "later", time.Hour))
		if err := leader.StageOnly(c.Context(), file.State); err != nil {
			t.Fatal(err)
		}
		c.AwaitSame()
		for _, n := range c.Nodes() {
			if !staged(n) || n.State().MemberCount() != before+1 {
				t.Errorf("%s: staged %t, %d members", n.ID, staged(n), n.State().MemberCount())
			}
			if err := n.Snapshot(); err != nil {
				t.Error(err)
			}
		}
		if err := leader.Transfer(c.Context(), ""); err != nil {
			t.Fatal(err)
		}
		c.Write(register("web", "after", time.Hour))
		c.AwaitSame()
		for _, n := range c.Nodes() {
			if staged(n) || n.State().MemberCount() != before+2 {
				t.Errorf("%s: staged %t, %d members", n.ID, staged(n), n.State().MemberCount())
			}
		}
		if _, err := c.Leader().Restore(c.Context(), file); err != nil {
			t.Fatal(err)
		}
		c.AwaitSame()
		for _, n := range c.Nodes() {
			if staged(n) || n.State().MemberCount() != before {
				t.Errorf("%s: staged %t, %d members", n.ID, staged(n), n.State().MemberCount())
			}
		}
	})
}

// TestRestoreThatItsCallerLeaves: a context that ends while parts are staged leaves
// nothing.
func TestRestoreThatItsCallerLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.Write(register("web", "a", time.Hour))
		n := c.Leader()
		_, file := fileOf(t, n)
		c.Write(register("web", "b", time.Hour))
		ctx, cancel := context.WithCancel(c.Context())
		cancel()
		if _, err := n.Restore(ctx, file); !errors.Is(err, store.ErrBusy) && !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("%v", err)
		}
		c.AwaitSame()
		for _, n := range c.Nodes() {
			if staged(n) || n.State().MemberCount() != 2 {
				t.Errorf("%s: staged %t, %d members", n.ID, staged(n), n.State().MemberCount())
			}
		}
	})
}

// TestUnfinishedNewCluster: a directory in which a crash has ended the forming of a
// cluster from a file is refused without the file, and becomes whole with it.
func TestUnfinishedNewCluster(t *testing.T) {
	t.Parallel()
	from := storetest.New(t)
	from.Three()
	from.Write(register("web", "a", time.Hour))
	data, file := fileOf(t, from.Leader())
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	restore := func(cfg *store.Config) { cfg.Restore = path }
	for name, crash := range map[string]func(dir string) error{
		"before raft's snapshot": func(dir string) error {
			return errors.Join(store.ForgetCluster(dir), os.RemoveAll(filepath.Join(dir, raftlog.SnapshotDir)))
		},
		"before the cluster's id": store.ForgetCluster,
	} {
		t.Run(name, func(t *testing.T) {
			c := storetest.New(t)
			c.Open("n1", restore, func(cfg *store.Config) { cfg.ElectionTimeout = time.Minute }).Stop() // it writes no log
			if err := crash(c.DirOf("n1")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.TryOpen("n1"); !errors.Is(err, store.ErrDataDir) || !strings.Contains(err.Error(), "has not ended") {
				t.Errorf("without the file: %v", err)
			}
			n := c.Open("n1", restore)
			n.Form(store.Formation{})
			c.AwaitReady(n)
			s := n.State()
			if g := s.Group("web"); g == nil || g.Revision != file.State.Group("web").Revision || g.Fingerprint() != file.State.Group("web").Fingerprint() {
				t.Errorf("group %+v", g)
			}
			if s.Node("n1") == nil || s.NodeCount() != 1 || n.ClusterID() == "" || n.ClusterID() == file.Header.ClusterId {
				t.Errorf("%d nodes, cluster id %q", s.NodeCount(), n.ClusterID())
			}
			if f, err := snapshotsIn(c.DirOf("n1")); err != nil || f != 1 {
				t.Errorf("%d snapshots, %v", f, err)
			}
		})
	}
}

func snapshotsIn(dir string) (int, error) {
	entries, err := os.ReadDir(filepath.Join(dir, raftlog.SnapshotDir))
	return len(entries), err
}

// TestRestoreAtABadMoment: a restoration is refused by a node that does not lead, of
// a file over the limit, and without room on the disk.
func TestRestoreAtABadMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disks := roomy()
		c := storetest.New(t, disks.of)
		c.Three()
		c.Write(register("web", "a", time.Hour))
		leader := c.Leader()
		_, file := fileOf(t, leader)
		for _, n := range c.Nodes() {
			if n != leader {
				if _, err := n.Restore(c.Context(), file); !errors.Is(err, store.ErrNotLeader) {
					t.Errorf("%s, which does not lead: %v", n.ID, err)
				}
			}
		}
		disks.set(leader.ID, 100<<20+1) // no room for the file above the mark
		if _, err := leader.Restore(c.Context(), file); !errors.Is(err, store.ErrDiskLow) {
			t.Errorf("a full disk: %v", err)
		}
		disks.set(leader.ID, 1<<30)
		large := *file
		large.Size = fsm.MaxRestore + 1
		if _, err := leader.Restore(c.Context(), &large); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("over the limit: %v", err)
		}
	})
}
