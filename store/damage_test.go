package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/storetest"
	"github.com/werbenhu/registry/store/storetest/seed"
)

func few(cfg *store.Config) { cfg.SnapshotThreshold = 8 }

// written starts a single node, writes until it has two snapshots and a log after them,
// and stops it.
func written(t *testing.T, c *storetest.Cluster) *storetest.Node {
	t.Helper()
	n := c.Start("n1", store.Formation{})
	c.AwaitReady(n)
	for i := range 90 {
		c.Write(register("web", fmt.Sprint("m", i), time.Minute))
		if i == 30 || i == 70 {
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.Stop()
	return n
}

// content is the digest of the members only: a restart begins a new term.
func content(n *storetest.Node) (sum uint64) {
	for g := range n.State().Groups {
		sum += g.Digest()
	}
	return sum
}

// snapshotsOf are the directories of the snapshots, the oldest first.
func snapshotsOf(t *testing.T, n *storetest.Node) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.Dir, "snapshots", "*-*-*"))
	if err != nil || len(found) != 2 {
		t.Fatalf("snapshots %v, %v", found, err)
	}
	if found[0] > found[1] && len(found[0]) >= len(found[1]) || len(found[0]) > len(found[1]) {
		found[0], found[1] = found[1], found[0]
	}
	return found
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at%len(data)] ^= 0x10
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, path string, to int64) {
	t.Helper()
	if err := os.Truncate(path, to); err != nil {
		t.Fatal(err)
	}
}

// The log reaches back to the older of two snapshots: if the newer one is damaged, the
// node starts from the older one, with the same state.
func TestDamagedNewestSnapshotIsNotNeeded(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, snapshot string){
		"state changed":   func(t *testing.T, s string) { flip(t, filepath.Join(s, "state.bin"), 700) },
		"state cut":       func(t *testing.T, s string) { cut(t, filepath.Join(s, "state.bin"), 100) },
		"meta changed":    func(t *testing.T, s string) { flip(t, filepath.Join(s, "meta.json"), 60) },
		"meta cut":        func(t *testing.T, s string) { cut(t, filepath.Join(s, "meta.json"), 60) },
		"meta empty":      func(t *testing.T, s string) { cut(t, filepath.Join(s, "meta.json"), 0) },
		"checksum damage": func(t *testing.T, s string) { flip(t, filepath.Join(s, "meta.sum"), 1) },
		"another index, and a crash before the checksum": func(t *testing.T, s string) {
			meta := filepath.Join(s, "meta.json")
			data, err := os.ReadFile(meta)
			if err != nil {
				t.Fatal(err)
			}
			index := regexp.MustCompile(`"Index":(\d+)`)
			at, err := strconv.Atoi(string(index.FindSubmatch(data)[1]))
			if err != nil {
				t.Fatal(err)
			}
			data = index.ReplaceAll(data, fmt.Appendf(nil, `"Index":%d`, at-1))
			if err := errors.Join(os.WriteFile(meta, data, 0o600), os.Remove(filepath.Join(s, "meta.sum"))); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := storetest.New(t, few)
			n := written(t, c)
			want := content(n)
			newest := snapshotsOf(t, n)[1]
			damage(t, newest)
			n = c.Start("n1", store.Formation{})
			c.AwaitReady(n)
			if got := content(n); got != want {
				t.Errorf("members have digest %016x, want %016x", got, want)
			}
			if _, err := os.Stat(filepath.Join(n.Dir, "damaged-snapshots", filepath.Base(newest))); err != nil {
				t.Errorf("not set aside: %v", err)
			}
		})
	}
}

// A directory that is no snapshot is ignored.
func TestOtherDirectoryBesideSnapshots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, few)
		n := written(t, c)
		want := content(n)
		other := filepath.Join(n.Dir, "snapshots", "lost+found")
		if err := os.Mkdir(other, 0o700); err != nil {
			t.Fatal(err)
		}
		n = c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		if got := content(n); got != want {
			t.Errorf("members have digest %016x, want %016x", got, want)
		}
		if _, err := os.Stat(other); err != nil {
			t.Error(err)
		}
	})
}

// wantUnusable requires a refusal that says what to do.
func wantUnusable(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, store.ErrDataDir) || !strings.Contains(fmt.Sprint(err), "registry cluster remove n") {
		t.Errorf("opened: %v", err)
	}
}

func TestAllSnapshotsDamagedIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, few)
		n := written(t, c)
		for _, s := range snapshotsOf(t, n) {
			flip(t, filepath.Join(s, "state.bin"), 40)
		}
		_, err := c.TryOpen("n1")
		wantUnusable(t, err)
	})
}

// logKinds are the kinds of log, with segments so small that a test fills some.
var logKinds = map[string]func(*store.Config){
	raftlog.Bolt: func(cfg *store.Config) { cfg.LogStore = raftlog.Bolt },
	raftlog.WAL: func(cfg *store.Config) {
		cfg.LogStore = raftlog.WAL
		store.SegmentSize(cfg, 2<<10)
	},
}

// eachLog runs a test for every kind of log, in synthetic time.
func eachLog(t *testing.T, test func(t *testing.T, kind func(*store.Config))) {
	eachLogInRealTime(t, func(t *testing.T, kind func(*store.Config)) {
		synctest.Test(t, func(t *testing.T) { test(t, kind) })
	})
}

func eachLogInRealTime(t *testing.T, test func(t *testing.T, kind func(*store.Config))) {
	for name, kind := range logKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// editLog changes the log's file through bbolt.
func editLog(t *testing.T, dir string, edit func(logs *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "raft.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(tx *bbolt.Tx) error { return edit(tx.Bucket([]byte("logs"))) }), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func editLast(t *testing.T, n *storetest.Node, edit func(b *bbolt.Bucket, key, value []byte) error) {
	t.Helper()
	editLog(t, n.Dir, func(b *bbolt.Bucket) error {
		k, v := b.Cursor().Last()
		return edit(b, bytes.Clone(k), bytes.Clone(v))
	})
}

// logDamage damages the log of a stopped node; before is an older copy of its directory.
type logDamage func(t *testing.T, n *storetest.Node, before string)

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// replace restores a file from an older copy of the directory.
func replace(t *testing.T, n *storetest.Node, before, name string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(before, name))
	if err == nil {
		err = os.WriteFile(filepath.Join(n.Dir, name), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var boltDamages = map[string]logDamage{
	"file cut": func(t *testing.T, n *storetest.Node, _ string) { cut(t, filepath.Join(n.Dir, "raft.db"), 20_000) },
	"log gone": func(t *testing.T, n *storetest.Node, _ string) { remove(t, filepath.Join(n.Dir, "raft.db")) },
	"both meta pages": func(t *testing.T, n *storetest.Node, _ string) {
		flip(t, filepath.Join(n.Dir, "raft.db"), 40)
		flip(t, filepath.Join(n.Dir, "raft.db"), 4096+40)
	},
	"last entry lost": func(t *testing.T, n *storetest.Node, _ string) {
		editLast(t, n, func(b *bbolt.Bucket, k, _ []byte) error { return b.Delete(k) })
	},
	"last entry changed": func(t *testing.T, n *storetest.Node, _ string) {
		editLast(t, n, func(b *bbolt.Bucket, k, v []byte) error {
			v[len(v)-9] ^= 1
			return b.Put(k, v)
		})
	},
	"entry lost in between": func(t *testing.T, n *storetest.Node, _ string) {
		editLog(t, n.Dir, func(b *bbolt.Bucket) error {
			cur := b.Cursor()
			cur.Last()
			cur.Prev()
			k, _ := cur.Prev()
			return b.Delete(bytes.Clone(k))
		})
	},
	"set back to an older copy": func(t *testing.T, n *storetest.Node, before string) { replace(t, n, before, "raft.db") },
}

// segmentsOf are the files of a log in segments, the oldest first.
func segmentsOf(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "wal", "*.wal"))
	if err != nil || len(found) < 2 {
		t.Fatalf("segments %v, %v", found, err)
	}
	return found
}

// tailOf is the last segment, and its length without the zeros at the end.
func tailOf(t *testing.T, n *storetest.Node) (path string, used int) {
	t.Helper()
	all := segmentsOf(t, n.Dir)
	if used = tailUsed(t, n.Dir); used < minTail {
		t.Fatalf("the last segment has %d bytes", used)
	}
	return all[len(all)-1], used
}

// minTail is the least length of a last segment with entries to damage.
const minTail = 200

func tailUsed(t *testing.T, dir string) int {
	t.Helper()
	all := segmentsOf(t, dir)
	data, err := os.ReadFile(all[len(all)-1])
	if err != nil {
		t.Fatal(err)
	}
	return len(bytes.TrimRight(data, "\x00"))
}

var walDamages = map[string]logDamage{
	"tail cut": func(t *testing.T, n *storetest.Node, _ string) {
		path, used := tailOf(t, n)
		cut(t, path, int64(used-20))
	},
	"tail empty": func(t *testing.T, n *storetest.Node, _ string) {
		path, _ := tailOf(t, n)
		cut(t, path, 0)
	},
	"tail lost": func(t *testing.T, n *storetest.Node, _ string) {
		path, _ := tailOf(t, n)
		remove(t, path)
	},
	"last entry changed": func(t *testing.T, n *storetest.Node, _ string) {
		path, used := tailOf(t, n)
		flip(t, path, used-20)
	},
	"first batch of the tail changed": func(t *testing.T, n *storetest.Node, _ string) {
		path, _ := tailOf(t, n)
		flip(t, path, 50)
	},
	"header of the tail changed": func(t *testing.T, n *storetest.Node, _ string) {
		path, _ := tailOf(t, n)
		flip(t, path, 17)
	},
	"sealed segment changed": func(t *testing.T, n *storetest.Node, _ string) { flip(t, segmentsOf(t, n.Dir)[0], 50) },
	"sealed segment cut":     func(t *testing.T, n *storetest.Node, _ string) { cut(t, segmentsOf(t, n.Dir)[0], 500) },
	"sealed segment lost":    func(t *testing.T, n *storetest.Node, _ string) { remove(t, segmentsOf(t, n.Dir)[0]) },
	"list lost": func(t *testing.T, n *storetest.Node, _ string) {
		remove(t, filepath.Join(n.Dir, "wal", "segments.json"))
	},
	"list changed": func(t *testing.T, n *storetest.Node, _ string) {
		flip(t, filepath.Join(n.Dir, "wal", "segments.json"), 60)
	},
	"list set back": func(t *testing.T, n *storetest.Node, before string) {
		replace(t, n, before, "wal/segments.json")
	},
	"list set back, and raft.tail behind": func(t *testing.T, n *storetest.Node, before string) {
		replace(t, n, before, "wal/segments.json")
		replace(t, n, before, "raft.tail")
	},
	"first batch of the tail changed, and raft.tail gone": func(t *testing.T, n *storetest.Node, _ string) {
		path, _ := tailOf(t, n)
		flip(t, path, 50)
		remove(t, filepath.Join(n.Dir, "raft.tail"))
	},
	"log gone": func(t *testing.T, n *storetest.Node, _ string) { remove(t, filepath.Join(n.Dir, "wal")) },
	"log set back to an older copy": func(t *testing.T, n *storetest.Node, before string) {
		remove(t, filepath.Join(n.Dir, "wal"))
		if err := os.CopyFS(filepath.Join(n.Dir, "wal"), os.DirFS(filepath.Join(before, "wal"))); err != nil {
			t.Fatal(err)
		}
	},
	"votes gone":      func(t *testing.T, n *storetest.Node, _ string) { remove(t, filepath.Join(n.Dir, "raft.db")) },
	"votes' file cut": func(t *testing.T, n *storetest.Node, _ string) { cut(t, filepath.Join(n.Dir, "raft.db"), 5000) },
}

// A log that is damaged or an older copy is refused, and the advice in the error works.
func TestDamagedLogIsRefusedAndTheAdviceWorks(t *testing.T) {
	t.Parallel()
	for kind, damages := range map[string]map[string]logDamage{raftlog.Bolt: boltDamages, raftlog.WAL: walDamages} {
		for name, damage := range damages {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				testDamagedLog(t, logKinds[kind], damage)
			})
		}
	}
}

func testDamagedLog(t *testing.T, kind func(*store.Config), damage logDamage) {
	c := storetest.New(t, kind)
	c.Three()
	n := follower(c)
	c.Write(register("web", "a", time.Minute))
	c.AwaitSame()
	n.Stop()
	before := t.TempDir()
	if err := os.CopyFS(before, os.DirFS(n.Dir)); err != nil {
		t.Fatal(err)
	}
	n = c.Start(n.ID, store.Formation{})
	for i := range 50 {
		if i >= 24 { // the last entry is a write of its own: a damaged one that is alone in its segment was never finished
			c.AwaitSame()
		}
		c.Write(register("web", fmt.Sprint("m", i), time.Minute))
		if i < 24 {
			continue
		}
		c.AwaitSame()
		n.Stop()
		if len(segmentBytes(t, n.Dir)) == 0 || tailUsed(t, n.Dir) >= minTail {
			break
		}
		n = c.Start(n.ID, store.Formation{}) // the last segment has just begun
	}
	damage(t, n, before)
	found := segmentBytes(t, n.Dir)
	_, err := c.TryOpen(n.ID)
	wantUnusable(t, err)
	t.Log(err)
	if diff := cmp.Diff(found, segmentBytes(t, n.Dir)); diff != "" {
		t.Error("the start that was refused changed the segments")
	}

	// As the error says: remove the node, and start an empty one.
	c.Await("the removal", func() bool {
		err := c.Leader().RemoveNode(c.Context(), n.ID)
		return err == nil || errors.Is(err, store.ErrUnknownNode) // removed before, with an unknown outcome
	})
	c.Start("n4", store.Formation{Peers: []string{c.Leader().Bind}, JoinTimeout: storetest.Patience})
	c.AwaitVoters(idsOf(c.Nodes())...)
	c.Write(register("web", "z", time.Minute))
	c.AwaitSame()
}

// segmentBytes is the content of the directory of segments, if there is one.
func segmentBytes(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "wal", "*"))
	content := make(map[string][]byte)
	for _, path := range paths {
		data, rerr := os.ReadFile(path)
		content[path], err = data, errors.Join(err, rerr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func idsOf(nodes []*storetest.Node) (ids []string) {
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// A damaged entry ends the node that reads it, and the cluster continues.
func TestDamagedEntryEndsTheNodeThatReadsIt(t *testing.T) {
	t.Parallel()
	eachLog(t, testDamagedEntry)
}

func testDamagedEntry(t *testing.T, kind func(*store.Config)) {
	c := storetest.New(t, kind)
	c.Three()
	for i := range 5 {
		c.Write(register("web", fmt.Sprint("m", i), time.Minute))
	}
	c.AwaitSame()
	// After a restart the entries are read from the disk, not from the cache.
	n := follower(c)
	n.Stop()
	n = c.Start(n.ID, store.Formation{})
	c.AwaitReady(n)
	first, _ := n.LogRange()
	if err := n.DamageEntry(first + 2); err != nil {
		t.Fatal(err)
	}
	c.Await("the node to lead", func() bool {
		if n.IsLeader() {
			return true
		}
		_ = c.Leader().Transfer(c.Context(), n.ID) // retried
		return n.IsLeader()
	})
	// A new node needs the entry.
	joining := c.Open("n4")
	go func() { _ = joining.Store.Form(t.Context(), store.Formation{Peers: []string{n.Bind}}) }()
	awaitEnd(t, c, n)
	if err := n.Failure(); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), fmt.Sprintf("log entry %d", first+2)) {
		t.Errorf("failure: %v", err)
	}
	n.Kill()
	c.Write(register("web", "z", time.Minute))
	c.AwaitReady(joining)
	_, err := c.TryOpen(n.ID)
	wantUnusable(t, err)
}

// A changed byte anywhere on the disk of a stopped node either does not matter or is
// refused; it never results in another state or a panic.
func TestAnyByteMayChange(t *testing.T) {
	t.Parallel()
	eachLog(t, testAnyByte)
}

func testAnyByte(t *testing.T, kind func(*store.Config)) {
	r := seed.Rand(t)
	c := storetest.New(t, few, kind)
	n := written(t, c)
	want := content(n)
	rounds := 200
	if !storetest.Long() {
		rounds = 30
	}
	same, refused := 0, 0
	for range rounds {
		d := storetest.New(t, few, kind, func(cfg *store.Config) { cfg.ElectionTimeout = 50 * time.Millisecond })
		where := flipOne(t, r, n.Dir, d.DirOf("n1"))
		m, err := d.TryOpen("n1")
		if err != nil {
			refused++
			if !errors.Is(err, store.ErrDataDir) || !strings.Contains(err.Error(), "registry cluster remove") && !strings.Contains(err.Error(), "belongs to") {
				t.Errorf("%s: %v", where, err)
			}
			continue
		}
		m.Form(store.Formation{})
		d.AwaitReady(m)
		same++
		if got := content(m); got != want {
			t.Errorf("%s: members have digest %016x, want %016x", where, got, want)
		}
		m.Stop()
	}
	t.Logf("%d started with the same members, %d were refused", same, refused)
}

// logFiles are the files of the log among the files of a data directory.
func logFiles(files []string) (out []string) {
	for _, path := range files {
		if filepath.Base(path) == "raft.db" || filepath.Base(filepath.Dir(path)) == "wal" {
			out = append(out, path)
		}
	}
	return out
}

// flipOne copies a data directory and changes one byte, half of the time in a file of the
// log.
func flipOne(t *testing.T, r *rand.Rand, from, to string) (where string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	var files []string
	err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path := files[r.IntN(len(files))]
	if r.IntN(2) == 0 {
		path = logFiles(files)[r.IntN(len(logFiles(files)))]
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := r.IntN(len(data))
	for range 50 {
		if data[at] != 0 || r.IntN(4) == 0 {
			break
		}
		at = r.IntN(len(data)) // most of a log's file is empty
	}
	data[at] ^= byte(1 + r.IntN(255))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s, byte %d", filepath.Base(path), at)
}
