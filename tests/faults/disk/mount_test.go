//go:build linux

package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func mounted(t *testing.T) (*Mount, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := Usable(); err != nil {
		t.Skip(err)
	}
	m, err := New("").Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, dir
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// A process sees a file system. That a mapping shows what is written, the kinds of
// faults rely on with raft.db: a process cannot serve its own page faults.
func TestMountIsAFileSystem(t *testing.T) {
	m, dir := mounted(t)
	in := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	check(t, os.MkdirAll(in("a", "b"), 0o700), os.WriteFile(in("a", "b", "f"), []byte("first"), 0o600))
	f, err := os.OpenFile(in("a", "b", "f"), os.O_RDWR, 0)
	check(t, err)
	defer func() { _ = f.Close() }()
	check(t, unix.Fallocate(int(f.Fd()), 0, 0, 1<<20))
	_, err = f.WriteAt([]byte("SECOND"), 1<<19)
	data, rerr := os.ReadFile(in("a", "b", "f"))
	check(t, err, rerr)
	if len(data) != 1<<20 || !bytes.HasPrefix(data, []byte("first")) || !bytes.HasPrefix(data[1<<19:], []byte("SECOND")) {
		t.Errorf("%d bytes: %q, %q", len(data), data[:8], data[1<<19:][:8])
	}
	check(t, f.Truncate(4), unix.Flock(int(f.Fd()), unix.LOCK_EX))
	check(t, os.Rename(in("a", "b", "f"), in("a", "g")), os.Remove(in("a", "b")))
	if data, err := os.ReadFile(in("a", "g")); err != nil || string(data) != "firs" {
		t.Errorf("renamed: %q, %v", data, err)
	}
	if err := os.Remove(in("a")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("remove what is not empty: %v", err)
	}
	for i := range 1000 {
		check(t, os.WriteFile(in("a", string(rune('A'+i%26))+string(rune('a'+i/26))), nil, 0o600))
	}
	list, err := os.ReadDir(in("a"))
	check(t, err, f.Close())
	if len(list) != 1001 || len(m.Names("a")) != 1001 {
		t.Errorf("%d entries and %d names", len(list), len(m.Names("a")))
	}
	check(t, os.RemoveAll(in("a")))
}

// A cut loses what was not synced, also where the kernel had it cached.
func TestCutPower(t *testing.T) {
	m, dir := mounted(t)
	r, lost := random(t), 0
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	check(t, err)
	_, err = f.WriteString("synced ")
	d, derr := os.Open(dir)
	check(t, err, derr, f.Sync(), d.Sync(), d.Close(), f.Close())
	for range 20 {
		before, berr := os.ReadFile(path)
		f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
		check(t, berr, err)
		_, err = f.WriteString("not")
		check(t, err, f.Close())
		if _, err := m.CutPower(r); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		check(t, err)
		if len(data) == len(before) {
			lost++
		}
		if got := bytes.TrimRight(data, "not\x00"); !slices.Equal(got, []byte("synced ")) {
			t.Fatalf("after a cut: %q", data)
		}
	}
	if lost == 0 {
		t.Error("nothing was ever lost")
	}
}
