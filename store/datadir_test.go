package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/werbenhu/registry/store/raftlog"
)

func writeFile(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDataDirKeepsItsIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	first, err := openDataDir(dir, "n1", "test", "")
	if err != nil {
		t.Fatal(err)
	}
	if first.Incarnation == "" || first.ID != "n1" || first.Cluster != "test" {
		t.Errorf("%+v", first)
	}
	again, err := openDataDir(dir, "n1", "test", "")
	if err != nil || again.Incarnation != first.Incarnation || again.ID != first.ID {
		t.Errorf("%+v, %v, was %+v", again, err, first)
	}
	other, err := openDataDir(t.TempDir(), "n1", "test", "")
	if err != nil || other.Incarnation == first.Incarnation {
		t.Errorf("two directories have incarnation %q, %v", other.Incarnation, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDataDirThatIsNotThisNodes(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		says    string // empty: it can be used
	}{
		{"of another node", func(t *testing.T, dir string) {
			if _, err := openDataDir(dir, "n2", "test", ""); err != nil {
				t.Fatal(err)
			}
		}, "-id"},
		{"of another cluster", func(t *testing.T, dir string) {
			if _, err := openDataDir(dir, "n1", "prod", ""); err != nil {
				t.Fatal(err)
			}
		}, "-cluster"},
		{"with a foreign file", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "holiday.jpg"), "") }, "holiday.jpg"},
		{"with a log and no identity", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, raftlog.DBFile), "") }, raftlog.DBFile},
		{"with an identity that is cut short", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, identityFile), `{"id":"n1","clus`)
		}, "damaged"},
		{"with an empty identity", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, identityFile), "") }, "damaged"},
		{"without an incarnation", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, identityFile), `{"id":"n1","cluster":"test"}`)
		}, "damaged"},
		{"whose identity cannot be read", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, identityFile, "x"), "") }, identityFile},
		{"that is a file", func(t *testing.T, dir string) { writeFile(t, dir, "") }, "cannot be created"},
		{"of a file system's root", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "lost+found", "x"), "") }, ""},
		{"where a claim was cut short", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, identityFile+".tmp123"), "{") }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			tc.prepare(t, dir)
			_, err := openDataDir(dir, "n1", "test", "")
			if tc.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrDataDir) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want ErrDataDir that names %q and the directory", err, tc.says)
			}
		})
	}
}

func TestDataDirThatCannotBeWritten(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root writes everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir, "n1", "test", ""); !errors.Is(err, ErrDataDir) {
		t.Errorf("got %v, want ErrDataDir", err)
	}
}

func TestUnfinishedSnapshotsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, raftlog.SnapshotDir, "1-2-3.tmp", "state.bin"), "half")
	writeFile(t, filepath.Join(dir, raftlog.SnapshotDir, "1-2-3", "state.bin"), "whole")
	if err := removeUnfinished(dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, raftlog.SnapshotDir, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "1-2-3" {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A directory of the first format is refused, and the error names both formats.
func TestDataDirOfAnOlderFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	ident, err := openDataDir(dir, "n1", "c", "")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := openDataDir(dir, "n1", "c", ""); err != nil || again.Incarnation != ident.Incarnation {
		t.Fatalf("its own format: %+v, %v", again, err)
	}
	ident.Format = 0 // as in the first format
	if err := ident.save(dir); err != nil {
		t.Fatal(err)
	}
	_, err = openDataDir(dir, "n1", "c", "")
	if !errors.Is(err, ErrDataDir) || !strings.Contains(err.Error(), "its format is 1 and this version reads 2 and newer") {
		t.Errorf("got %v", err)
	}
}

// A directory keeps its kind of log, and another kind is refused.
func TestDataDirKeepsItsLogKind(t *testing.T) {
	for _, tc := range []struct{ began, kind, other string }{
		{"", raftlog.WAL, raftlog.Bolt}, {raftlog.WAL, raftlog.WAL, raftlog.Bolt}, {raftlog.Bolt, raftlog.Bolt, raftlog.WAL},
	} {
		dir := t.TempDir()
		if _, err := openDataDir(dir, "n1", "test", tc.began); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"", tc.kind} {
			have, err := openDataDir(dir, "n1", "test", want)
			if err != nil || have.logKind() != tc.kind {
				t.Errorf("began with %q, opened with %q: %v in %q", tc.began, want, err, have.logKind())
			}
		}
		_, err := openDataDir(dir, "n1", "test", tc.other)
		if !errors.Is(err, ErrDataDir) || !strings.Contains(err.Error(), "-log-store") || !strings.Contains(err.Error(), "registry migrate-log -data-dir "+dir+" -to "+tc.other) {
			t.Errorf("began with %q, opened with %q: %v", tc.began, tc.other, err)
		}
	}
}

// An older version can read a directory with its log in raft.db.
func TestDataDirWithoutALogKind(t *testing.T) {
	dir := t.TempDir()
	if _, err := openDataDir(dir, "n1", "test", raftlog.Bolt); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil || strings.Contains(string(data), `"log"`) {
		t.Errorf("%s, %v", data, err)
	}
}
