//go:build linux

package disk

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// random is a source for one test, which prints its seed.
func random(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

const regular = syscall.S_IFREG | 0o600

// names are a directory's, whether they are files' or not.
func names(n *inode) []string { return slices.Sorted(maps.Keys(n.entries)) }

// What was synced survives every cut, whatever came after it, and an entry needs
// the sync of its directory.
func TestSyncedSurvives(t *testing.T) {
	r := random(t)
	for range 300 {
		d := New("")
		kept := d.create(d.root, "kept", regular)
		d.write(kept, 0, []byte("synced"))
		d.sync(kept)
		d.sync(d.root)
		d.rename(d.root, "kept", d.root, "renamed")
		d.create(d.root, "new", regular)
		d.sync(d.root.entries["new"])
		d.write(kept, 10_000, []byte("not synced"))
		d.cut(r)
		if got := names(d.root); len(got) == 0 || got[0] != "kept" && got[len(got)-1] != "renamed" || len(got) > 2 {
			t.Fatalf("entries: %v", got)
		}
		if !bytes.HasPrefix(kept.data, []byte("synced")) {
			t.Fatalf("content: %q", kept.data)
		}
	}
}

// What was not synced is lost in some cuts, torn in some, and kept in some.
func TestNotSyncedMayBeLost(t *testing.T) {
	r := random(t)
	seen := make(map[string]bool)
	const pages = 8
	for range 500 {
		d := New("")
		f := d.create(d.root, "f", regular)
		d.resize(f, pages*sector)
		d.sync(f)
		d.sync(d.root)
		d.create(d.root, "g", regular)
		d.write(f, 0, bytes.Repeat([]byte("x"), pages*sector))
		d.cut(r)
		switch n := bytes.Count(f.data, []byte("x")); {
		case len(f.data) != pages*sector || n%sector != 0:
			t.Fatalf("%d bytes, %d of them written", len(f.data), n)
		case n == 0:
			seen["lost"] = true
		case n == len(f.data):
			seen["kept"] = true
		case bytes.LastIndexByte(f.data, 'x') == n-1:
			seen["begun"] = true
		default:
			seen["scattered"] = true
		}
		seen["entry "+map[bool]string{true: "kept", false: "lost"}[d.root.entries["g"] != nil]] = true
	}
	if want := []string{"begun", "entry kept", "entry lost", "kept", "lost", "scattered"}; !slices.Equal(slices.Sorted(maps.Keys(seen)), want) {
		t.Errorf("cuts did %v, want %v", slices.Sorted(maps.Keys(seen)), want)
	}
}

// Writes to one sector last in their order: a later one brings the earlier ones.
func TestSectorsAreWhole(t *testing.T) {
	r := random(t)
	for range 300 {
		d := New("")
		f := d.create(d.root, "f", regular)
		d.sync(d.root)
		d.write(f, 0, []byte("one "))
		d.write(f, 4, []byte("two "))
		d.write(f, 8, []byte("three"))
		d.cut(r)
		// The size lasts apart from the content, and cuts it off or continues it.
		if got := bytes.TrimRight(f.data, "\x00"); !bytes.HasPrefix([]byte("one two three"), got) {
			t.Fatalf("got %q", got)
		}
	}
}

// A directory's changes last in their order.
func TestDirectoriesAreInOrder(t *testing.T) {
	r := random(t)
	for range 300 {
		d := New("")
		dir := d.create(d.root, "dir.tmp", syscall.S_IFDIR|0o700)
		d.create(dir, "a", regular)
		d.rename(d.root, "dir.tmp", d.root, "dir")
		d.change(d.root, map[string]*inode{"dir": nil})
		d.cut(r)
		if got := names(d.root); len(got) > 1 || len(got) == 1 && got[0] != "dir" && got[0] != "dir.tmp" {
			t.Fatalf("entries: %v", got)
		}
	}
}

// A sync that the disk forgets changes nothing, and one of another path does.
func TestForgottenSync(t *testing.T) {
	d := New("sub/*.wal")
	sub := d.create(d.root, "sub", syscall.S_IFDIR|0o700)
	wal, other := d.create(sub, "1.wal", regular), d.create(sub, "list", regular)
	for _, n := range []*inode{wal, other} {
		d.write(n, 0, []byte("x"))
		d.sync(n)
	}
	d.sync(sub)
	d.sync(d.root)
	if len(wal.synced) != 0 || len(other.synced) != 1 || sub.saved["1.wal"] != wal || d.root.saved["sub"] != sub {
		t.Errorf("synced: %q and %q, %v", wal.synced, other.synced, sub.saved)
	}
}
