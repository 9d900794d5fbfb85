//go:build unix

package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

// openToAll lets new files and directories have the permissions that a program asks
// for. It is the process's, so the test must not be parallel.
func openToAll(t *testing.T) {
	was := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(was) })
}

// wide returns the paths in a directory that other users have permissions for, and how
// many paths there are.
func wide(t *testing.T, dir string) (open []string, paths int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of a running node
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o077 != 0 {
			open = append(open, fmt.Sprintf("%s %s", info.Mode(), path))
		}
		paths++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return open, paths
}

// With any umask nobody else can read what a node wrote: segments, snapshots of its own
// and of others, raft.db. Vault's raft storage wrote its file for all to read
// (CVE-2021-38553).
func TestDataDirIsPrivate(t *testing.T) {
	openToAll(t)
	for name, kind := range logKinds {
		t.Run(name, func(t *testing.T) {
			c := storetest.New(t, few, kind)
			c.Three()
			writeTokens(c)
			behind := follower(c)
			behind.Kill()
			work := func() {
				for i := range 100 {
					c.Write(register("web", fmt.Sprint("m", i), time.Minute))
				}
				for _, n := range c.Nodes() {
					if err := n.Snapshot(); err != nil && !strings.Contains(err.Error(), "nothing new") {
						t.Fatal(err)
					}
				}
			}
			work()
			// What it had was made private at the start; what it gets is new.
			c.AwaitReady(c.Start(behind.ID, store.Formation{}))
			work()
			for _, n := range c.Nodes() {
				open, paths := wide(t, n.Dir)
				snapshots, err := filepath.Glob(filepath.Join(n.Dir, "snapshots", "*", "state.bin"))
				if err != nil || len(snapshots) == 0 || paths < 10 {
					t.Errorf("%s wrote %d paths and %d snapshots, %v: the test shows little", n.ID, paths, len(snapshots), err)
				}
				if len(open) > 0 {
					t.Errorf("others may use:\n%s", strings.Join(open, "\n"))
				}
			}
		})
	}
}

// A directory that others could read is private after the start, and the log says so
// once. The directory may be a link; what a link in it leads to is not the node's.
func TestWideDataDirIsMadePrivate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, few)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		writeTokens(c)
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
		n.Stop()
		real, outside := n.Dir+"-moved", filepath.Join(t.TempDir(), "outside")
		if err := errors.Join(os.Rename(n.Dir, real), os.Symlink(real, n.Dir), os.WriteFile(outside, nil, 0o600),
			os.Chmod(outside, 0o644), os.Symlink(outside, filepath.Join(real, "link"))); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(real, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Type() == fs.ModeSymlink {
				return err
			}
			return os.Chmod(path, map[bool]fs.FileMode{true: 0o755, false: 0o644}[e.IsDir()])
		})
		if err != nil {
			t.Fatal(err)
		}
		const line = "other users had permissions in the data directory"
		for start, want := range []int{1, 0} {
			var log logbuffer.Buffer
			n = c.Start("n1", store.Formation{}, func(cfg *store.Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			c.AwaitReady(n)
			if open, _ := wide(t, real); len(open) > 0 {
				t.Errorf("start %d: others may use:\n%s", start, strings.Join(open, "\n"))
			}
			if got := strings.Count(log.String(), line); got != want {
				t.Errorf("start %d: logged %d times, want %d", start, got, want)
			}
			n.Stop()
		}
		if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("what a link leads to is %v, %v", info.Mode(), err)
		}
	})
}
