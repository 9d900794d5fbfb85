package raftlog

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func openCommits(t *testing.T, dir, owner string, fatal func(error)) *Commits {
	t.Helper()
	f := &Files{dir: dir}
	c, err := f.OpenCommits(owner, Watchdog{MaxHang: time.Minute, Fatal: fatal}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

func noFailure(t *testing.T) func(error) { return func(err error) { t.Error(err) } }

// The record is what was noted last, also without a sync, and never goes back.
func TestCommitsAreKept(t *testing.T) {
	dir := t.TempDir()
	for i := uint64(1); i < 9; i++ {
		c := openCommits(t, dir, "owner", noFailure(t))
		if got := c.Last(); got.Index != 10*(i-1) {
			t.Fatalf("start %d: %v", i, got)
		}
		for j := range i {
			c.Note(10*i-1, j+1) // older ones count once
		}
		c.Note(10*i, i)
		c.Note(1, 1) // the log is replayed
		if got, want := c.Last(), (CommitMark{10 * i, i}); got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	if got := openCommits(t, dir, "other", noFailure(t)).Last(); got != (CommitMark{}) {
		t.Errorf("another owner's record counts: %v", got)
	}
}

// Damage loses the last record, or both, and makes no other.
func TestDamagedCommits(t *testing.T) {
	dir := t.TempDir()
	c := openCommits(t, dir, "owner", noFailure(t))
	before, last := CommitMark{7, 2}, CommitMark{9, 3}
	c.Note(before.Index, before.Term)
	c.Note(last.Index, last.Term)
	path := filepath.Join(dir, CommitFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[CommitMark]int)
	try := func(data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		seen[openCommits(t, dir, "owner", noFailure(t)).Last()]++
	}
	for i := range whole {
		data := bytes.Clone(whole)
		data[i] ^= 0x10
		try(data)
	}
	if seen[last] != len(whole)-commitSize || seen[before] != commitSize {
		t.Errorf("one byte changed: %v", seen)
	}
	clear(seen)
	try(nil)
	try(whole[:100])
	try(bytes.Repeat([]byte{0xff}, len(whole)))
	if seen[CommitMark{}] != 3 {
		t.Errorf("cut or overwritten: %v", seen)
	}
}

// A record counts for the log that has its entry, and for no other.
func TestCommitsOfAnotherLog(t *testing.T) {
	logs := raft.NewInmemStore()
	for i := uint64(1); i <= 9; i++ {
		if err := logs.StoreLog(&raft.Log{Index: i, Term: 3}); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		mark     CommitMark
		snapshot uint64
		counts   bool
	}{
		"its entry":             {CommitMark{8, 3}, 0, true},
		"another term":          {CommitMark{8, 2}, 0, false},
		"beyond the end":        {CommitMark{10, 3}, 0, false},
		"covered by a snapshot": {CommitMark{10, 3}, 10, true},
	} {
		c := openCommits(t, t.TempDir(), "owner", noFailure(t))
		c.Note(test.mark.Index, test.mark.Term)
		if err := c.Check(logs, test.snapshot, slog.New(slog.DiscardHandler)); err != nil || (c.Last() == test.mark) != test.counts {
			t.Errorf("%s: %v, %v", name, c.Last(), err)
		}
	}
}

// What cannot be written or synced ends the node.
func TestCommitsThatCannotBeWritten(t *testing.T) {
	for name, use := range map[string]func(c *Commits){
		"write": func(c *Commits) { c.Note(2, 1) },
		"sync":  func(c *Commits) { c.Sync() },
	} {
		var failure error
		c := openCommits(t, t.TempDir(), "owner", func(err error) { failure = err })
		c.Note(1, 1)
		if err := c.file.Close(); err != nil {
			t.Fatal(err)
		}
		if use(c); !errors.Is(failure, ErrStorage) || c.Last().Index != 1 {
			t.Errorf("%s: %v, last %v", name, failure, c.Last())
		}
	}
}
