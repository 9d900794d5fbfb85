package store_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/storetest"
)

// lostQuorum writes to three nodes, so that n1 has a snapshot and entries after it, and
// stops them all. It returns what n1 had.
func lostQuorum(t *testing.T, c *storetest.Cluster) (n1 *storetest.Node, members uint64, last uint64) {
	t.Helper()
	n1 = c.Three()[0]
	c.AwaitKnown()
	for i := range 30 {
		c.Write(register("web", fmt.Sprint("m", i), time.Minute))
		if i == 20 {
			c.AwaitSame()
			if err := n1.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.AwaitSame()
	members = content(n1)
	for _, id := range []string{"n2", "n3", "n1"} {
		c.Node(id).Kill()
	}
	return n1, members, n1.State().Index()
}

func recoverDir(t *testing.T, dir string) (store.Survivor, string) {
	t.Helper()
	s, id, err := store.RecoverSteps(dir, smallSegments, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return s, id
}

// recoveredStarts starts n1 on a copy of a directory, which has to lead alone with
// everything that it had.
func recoveredStarts(t *testing.T, dir string, kind func(*store.Config), before string, members, last uint64) {
	t.Helper()
	c := storetest.New(t, few, kind, func(cfg *store.Config) { cfg.ElectionTimeout = 50 * time.Millisecond })
	if err := os.CopyFS(c.DirOf("n1"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for start := range 2 {
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		if start > 0 && n.State().Group("other") == nil { // the recovery ends once
			t.Error("what was written after the recovery is lost")
		}
		c.Write(register("other", "a", time.Minute))
		if n.ClusterID() == before || len(n.ClusterID()) != len(before) {
			t.Errorf("the cluster's id is %q, was %q", n.ClusterID(), before)
		}
		if n.State().Group("web").Len() != 30 || n.State().Index() < last+store.RecoveryGap {
			t.Errorf("%d members at index %d; the log ended at %d", n.State().Group("web").Len(), n.State().Index(), last)
		}
		if got := n.State().Group("web").Digest(); got != members {
			t.Errorf("members have digest %016x, want %016x", got, members)
		}
		c.AwaitKnown()
		if got := n.State().NodeCount(); got != 1 {
			t.Errorf("%d nodes are known", got)
		}
		n.Stop()
	}
}

// A recovery that is interrupted at any step leaves the directory as it was, or a
// recovered one, and can be repeated.
func TestRecoveryIsWholeAtEveryStep(t *testing.T) {
	t.Parallel()
	eachLogInRealTime(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, kind, func(cfg *store.Config) { cfg.SnapshotThreshold = 1 << 10 })
		n, members, last := lostQuorum(t, c)
		before := n.ClusterID()
		type copied struct{ step, dir string }
		copies := []copied{{"before", copyOpen(t, n.Dir)}}
		s, id, err := store.RecoverSteps(n.Dir, smallSegments, func(what string) {
			copies = append(copies, copied{what, copyOpen(t, n.Dir)})
		})
		if err != nil || s.LastIndex < last || s.Committed == 0 || s.Committed >= last || s.Members != 30 || s.Groups != 1 || s.Term == 0 || s.LastTerm == 0 {
			t.Fatalf("%+v, %v", s, err)
		}
		want := []store.SurvivorNode{{ID: "n1", Bind: n.Bind, Voter: true}, {ID: "n2", Bind: storetest.BindOf("n2"), Voter: true}, {ID: "n3", Bind: storetest.BindOf("n3"), Voter: true}}
		if fmt.Sprint(s.Nodes) != fmt.Sprint(want) || s.ClusterID != before || s.ID != "n1" || s.LastWritten.IsZero() {
			t.Errorf("%+v", s)
		}
		if _, err := os.Stat(filepath.Join(n.Dir, "recovery")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its own directory: %v", err)
		}
		if _, again := recoverDir(t, n.Dir); again != id { // a script that runs it again
			t.Errorf("recovered again: cluster id %s, was %s", again, id)
		}
		last = s.LastIndex
		recoveredStarts(t, n.Dir, kind, before, members, last)
		if len(copies) < 6 {
			t.Fatalf("steps %v", copies)
		}
		for _, at := range copies {
			t.Run(at.step, func(t *testing.T) {
				t.Parallel()
				switch at.step {
				case "before", "snapshot written":
					// A node that starts on it is the old one, and has no quorum.
					c := storetest.New(t, kind)
					if err := os.CopyFS(c.DirOf("n1"), os.DirFS(at.dir)); err != nil {
						t.Fatal(err)
					}
					n := c.Start("n1", store.Formation{})
					if got := storetest.Voters(n.Store); n.ClusterID() != before || len(got) != 3 {
						t.Errorf("cluster id %s, voters %v", n.ClusterID(), got)
					}
					n.Stop()
					if left, err := filepath.Glob(filepath.Join(n.Dir, "recovery")); err != nil || len(left) > 0 {
						t.Errorf("left: %v, %v", left, err)
					}
				default:
					recoveredStarts(t, at.dir, kind, before, members, last)
				}
				if s, _ := recoverDir(t, at.dir); s.ID != "n1" {
					t.Errorf("%+v", s)
				}
				recoveredStarts(t, at.dir, kind, before, members, last)
			})
		}
	})
}

// The lost nodes may join with empty directories. One that comes back with its old
// directory ends and says what to do.
func TestRecoveredClusterRefusesOldDirectories(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, few)
		n1, members, _ := lostQuorum(t, c)
		before := n1.ClusterID()
		recoverDir(t, n1.Dir)
		n1 = c.Start("n1", store.Formation{})
		c.AwaitReady(n1)
		old := c.Start("n2", store.Formation{}) // asks those that it knows
		awaitFailed(t, c, old)
		if err := old.Failure(); !strings.Contains(err.Error(), "recovered without this node") || !strings.Contains(err.Error(), "empty -data-dir and -registries "+n1.Bind) {
			t.Errorf("failure: %v", err)
		}
		old.Kill()
		hello := old.Self()
		if err := n1.AdmitNode(c.Context(), hello); !errors.Is(err, store.ErrMembership) || !strings.Contains(err.Error(), "from before its recovery") {
			t.Errorf("admitted with cluster id %s: %v", before, err)
		}
		// An empty cluster of one node ends when another cluster calls it, but not when the
		// other one is what it was recovered from.
		c.Write(deregister("web", "m0"))
		n1.ForeignCall(before)
		for _, id := range []string{"n2", "n3"} {
			if err := os.RemoveAll(c.DirOf(id)); err != nil {
				t.Fatal(err)
			}
			c.Start(id, store.Formation{Peers: []string{n1.Bind}})
		}
		c.AwaitVoters("n1", "n2", "n3")
		c.AwaitSame()
		if got := c.Node("n3"); got.State().Group("web").Len() != 29 || content(got) == members {
			t.Errorf("%d members", got.State().Group("web").Len())
		}
		if got := c.Node("n3").Self().RecoveredFrom; len(got) != 1 || got[0] != before {
			t.Errorf("a node that joined knows %v, want %s", got, before)
		}
	})
}

// Two of three lost nodes come back, and are a majority in what they know. They form the
// old cluster again, and nothing goes from one cluster to the other.
func TestOldMajorityDoesNotMixWithTheRecoveredCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, few)
		n1, _, _ := lostQuorum(t, c)
		recoverDir(t, n1.Dir)
		n2, n3 := c.Start("n2", store.Formation{}), c.Start("n3", store.Formation{})
		c.LeaderOf("n2", "n3")
		c.Write(register("old", "a", time.Minute))
		n1 = c.Start("n1", store.Formation{})
		c.AwaitReady(n1)
		if _, err := n1.Write(c.Context(), register("new", "a", time.Minute)); err != nil {
			t.Fatal(err)
		}
		leader := c.LeaderOf("n2", "n3")
		for i := range 40 { // with snapshots, which the leader would send
			if _, err := leader.Write(c.Context(), register("old", fmt.Sprint("b", i), time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		if n1.State().Group("old") != nil || n1.State().Group("new") == nil || len(storetest.Voters(n1.Store)) != 1 {
			t.Errorf("the recovered cluster has voters %v and %d groups", storetest.Voters(n1.Store), n1.State().GroupCount())
		}
		for _, n := range []*storetest.Node{n2, n3} {
			if n.State().Group("new") != nil || n.ClusterID() == n1.ClusterID() {
				t.Errorf("%s has the recovered cluster's data; cluster id %s", n.ID, n.ClusterID())
			}
		}
	})
}

// A lost node that comes back asks all others, also if the first that it asks are of the old
// cluster, have a leader, and take it in.
func TestOldNodeAsksAllOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Together(5)
		c.AwaitKnown()
		c.AwaitSame()
		killAll(c)
		recoverDir(t, c.DirOf("n5"))
		for _, id := range []string{"n1", "n2", "n3"} {
			c.Start(id, store.Formation{})
		}
		c.LeaderOf("n1", "n2", "n3")
		n5 := c.Start("n5", store.Formation{})
		c.AwaitReady(n5)
		awaitFailed(t, c, c.Start("n4", store.Formation{}))
		for _, id := range []string{"n1", "n2", "n3"} { // which had a leader before
			if err := c.Node(id).Failure(); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

func TestRecoveryIsRefused(t *testing.T) {
	t.Parallel()
	discard := slog.New(slog.DiscardHandler)
	t.Run("while the node runs", func(t *testing.T) {
		t.Parallel()
		c := storetest.New(t)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		if _, err := store.OpenRecovery(n.Dir, discard); !errors.Is(err, store.ErrInUse) {
			t.Errorf("%v", err)
		}
		n.Stop()
		if _, err := store.OpenRecovery(n.Dir, discard); !errors.Is(err, store.ErrOnlyVoter) {
			t.Errorf("the only voter: %v", err)
		}
		c.AwaitReady(c.Start("n1", store.Formation{})) // the lock is released
	})
	t.Run("without a node", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if _, err := store.OpenRecovery(dir, discard); !errors.Is(err, store.ErrDataDir) {
			t.Errorf("%v", err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("it left %v, %v", left, err)
		}
	})
	t.Run("of a node that waits for a cluster", func(t *testing.T) {
		t.Parallel()
		c := storetest.New(t)
		n := c.Open("n1")
		n.Stop()
		if _, err := store.OpenRecovery(n.Dir, discard); !errors.Is(err, store.ErrDataDir) || !strings.Contains(err.Error(), "is of no cluster yet") {
			t.Errorf("%v", err)
		}
	})
	t.Run("of a later version", func(t *testing.T) {
		t.Parallel()
		c := storetest.New(t)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		n.Stop()
		if err := store.SetFormat(n.Dir, 99); err != nil {
			t.Fatal(err)
		}
		if _, err := store.OpenRecovery(n.Dir, discard); !errors.Is(err, store.ErrDataDir) || !strings.Contains(err.Error(), "feature level 98") {
			t.Errorf("%v", err)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		t.Parallel()
		c := storetest.New(t, few, logKinds[raftlog.WAL])
		n := written(t, c)
		walDamages["tail cut"](t, n, "")
		if _, err := store.OpenRecovery(n.Dir, discard); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "another survivor") {
			t.Errorf("%v", err)
		}
		if entries, err := os.ReadDir(n.Dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "recovery" }) {
			t.Errorf("it left %v, %v", entries, err)
		}
	})
	t.Run("with damaged snapshots", func(t *testing.T) {
		t.Parallel()
		c := storetest.New(t, few, logKinds[raftlog.WAL])
		n := written(t, c)
		states, err := filepath.Glob(filepath.Join(n.Dir, raftlog.SnapshotDir, "*", "state.bin"))
		if err != nil || len(states) == 0 {
			t.Fatalf("%v, %v", states, err)
		}
		for _, state := range states {
			flip(t, state, 700)
		}
		if _, err := store.OpenRecovery(n.Dir, discard); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "snapshot") {
			t.Errorf("%v", err)
		}
	})
}
