package raftlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Replace moves a snapshot from another directory here, and removes the others. After a
// crash it may be called again.
func (s *Snapshots) Replace(from, id string) error {
	dir, source := filepath.Join(s.data, SnapshotDir), filepath.Join(from, SnapshotDir)
	if _, err := os.Stat(filepath.Join(dir, id)); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(filepath.Join(source, id), filepath.Join(dir, id)); err != nil {
			return err
		}
		if err := errors.Join(SyncDir(dir), SyncDir(source)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), snapshotUnfinished)
		if _, ok := snapshotIndex(name); ok && e.Name() != id {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, SyncDir(dir))
}

// Empty removes all entries. Term and vote stay.
func (f *Files) Empty() error {
	if err := f.tail.set(func(m *tailMark) { m.Index, m.Term = 0, 0 }, true); err != nil {
		return err
	}
	logs := f.Unchecked()
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	return logs.DeleteRange(first, last)
}

// Term is the current term.
func (f *Files) Term() (uint64, error) { return numberOrZero(f.stable(), KeyCurrentTerm) }
