//go:build unix

package raftlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMakePrivate(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]fs.FileMode{
		".": fs.ModeDir | 0o700, "a": fs.ModeDir | fs.ModeSetgid | 0o775, "lost+found": fs.ModeDir | 0o755,
		"a/read": 0o644, "a/private": 0o600, "a/group": 0o460,
	}
	want := map[string]fs.FileMode{
		"a": fs.ModeDir | fs.ModeSetgid | 0o700, "a/read": 0o600, "a/group": 0o400,
	}
	for name, mode := range modes {
		path := filepath.Join(dir, name)
		if mode.IsDir() {
			err = errors.Join(err, os.MkdirAll(path, 0o700))
		} else {
			err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600))
		}
		if err = errors.Join(err, os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	changed, err := MakePrivate(dir)
	if paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "a/group"), filepath.Join(dir, "a/read")}; err != nil || !slices.Equal(changed, paths) {
		t.Errorf("changed %v, %v", changed, err)
	}
	for name, was := range modes {
		mode, ok := want[name]
		if !ok {
			mode = was
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s is %v, want %v, %v", name, info.Mode(), mode, err)
		}
	}
	if _, err := MakePrivate(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}
