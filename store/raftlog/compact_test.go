package raftlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A compaction that is killed at any step leaves the whole log.
func TestCompactionIsWholeAtEveryStep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(dir string) *Files {
		files, err := Lock(dir)
		if err == nil {
			err = files.Open(Bolt, hclog.NewNullLogger(), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	files := open(dir)
	for i := uint64(1); i <= 64; i++ {
		if err := files.Entries().StoreLog(&raft.Log{Index: i, Term: 1, Data: make([]byte, 8<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Entries().DeleteRange(1, 60); err != nil {
		t.Fatal(err)
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	steps := map[string]string{"ended": dir}
	before, after, err := compact(dir, func(what string) {
		steps[what] = t.TempDir()
		if err := os.CopyFS(steps[what], os.DirFS(dir)); err != nil {
			t.Error(err)
		}
	})
	if err != nil || after > before/4 || len(steps) != 3 {
		t.Fatalf("%d bytes, then %d, steps %v; %v", before, after, steps, err)
	}
	if again, small, err := Compact(dir); err != nil || again != after || small != after {
		t.Errorf("again: %d bytes, then %d; %v", again, small, err)
	}
	for what, dir := range steps {
		if _, _, err := Compact(dir); err != nil { // also of what was killed
			t.Errorf("%s: %v", what, err)
		}
		files := open(dir)
		if from, last, err := files.Verify(); err != nil || from != 61 || last != 64 {
			t.Errorf("%s: entries %d to %d; %v", what, from, last, err)
		}
		if err := files.Close(); err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, DBFile+"?*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", what, left, err)
		}
	}
}

// A damaged file is refused, and stays as it is.
func TestCompactionOfADamagedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files, err := Lock(dir)
	if err == nil {
		err = files.Open(Bolt, hclog.NewNullLogger(), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 32; i++ {
		if err := files.Entries().StoreLog(&raft.Log{Index: i, Term: 1, Data: make([]byte, 8<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(files.Entries().DeleteRange(1, 16), files.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, DBFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{"cut": whole[:len(whole)/4], "overwritten": append(bytes.Clone(whole[:len(whole)/2]), make([]byte, len(whole)-len(whole)/2)...)} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Compact(dir); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, damaged) || slices.ContainsFunc(left, func(e os.DirEntry) bool { return strings.Contains(e.Name(), ".tmp") }) {
			t.Errorf("%s: %d bytes of %d, %v; %v", name, len(after), len(damaged), err, left)
		}
	}
}

// A start that waits for the lock while the file is replaced uses the new file: what is
// written to the old one would be gone.
func TestStartDuringACompactionUsesTheNewFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, DBFile)
	files, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	replace := func() {
		data, err := os.ReadFile(path)
		if err == nil {
			err = WriteFile(path, data)
		}
		if err != nil {
			t.Error(err)
		}
	}
	bolt, err := openBoltAnd(dir, func(try int) {
		if try == 0 {
			replace()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := (checkedStable{bolt}).SetUint64([]byte(KeyCurrentTerm), 7); err != nil {
		t.Fatal(err)
	}
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	if files, err = Lock(dir); err != nil {
		t.Fatal(err)
	}
	if term, err := files.Term(); err != nil || term != 7 {
		t.Errorf("term %d, %v", term, err)
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
}
