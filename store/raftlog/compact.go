package raftlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// minGain is what a compaction has to save, so that a small file stays as it is.
	minGain = 64 << 10
	// compactBatch bounds a transaction of the copy, in bytes.
	compactBatch = 4 << 20
)

// Compact rewrites raft.db of a stopped node without its free pages, which bbolt never
// returns. The sizes are in bytes, and equal if there is too little to gain.
//
// The copy is read back and then replaces the file, so a crash leaves one or the other.
// A rest of the copy is removed by the next compaction, and by the next start.
func Compact(dir string) (before, after int64, err error) {
	return compact(dir, func(string) {})
}

// compact calls step after each step, for tests.
func compact(dir string, step func(what string)) (before, after int64, err error) {
	path := filepath.Join(dir, DBFile)
	if err := verifyLogFile(path); err != nil {
		return 0, 0, err
	}
	src, err := lockDB(path)
	if err != nil {
		return 0, 0, err
	}
	// The lock is held until the new file has the name: a node that waits for it then
	// notices that the file was replaced (see openBolt).
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := RemoveUnfinishedDB(dir); err != nil {
		return 0, 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	before = info.Size()
	f, err := os.CreateTemp(dir, DBFile+unfinishedDB)
	if err != nil {
		return before, before, err
	}
	replaced := false
	defer func() {
		if !replaced {
			_ = os.Remove(f.Name()) // else the next start does
		}
	}()
	if err := f.Close(); err != nil {
		return before, before, err
	}
	if err := copyDB(f.Name(), src); err != nil {
		return before, before, err
	}
	step("copied")
	if info, err = os.Stat(f.Name()); err != nil || before-info.Size() < minGain {
		return before, before, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return before, before, err
	}
	replaced = true
	step("replaced")
	return before, info.Size(), SyncDir(dir)
}

const unfinishedDB = ".tmp*"

// RemoveUnfinishedDB removes what an interrupted compaction left. The caller has the lock.
func RemoveUnfinishedDB(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, DBFile+unfinishedDB))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func boltOptions() *bbolt.Options {
	return &bbolt.Options{Timeout: lockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
}

func lockDB(path string) (*bbolt.DB, error) {
	before, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, boltOptions())
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", DBFile, err)
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(before, now) { // another compaction
		return nil, errors.Join(ErrInUse, err, db.Close())
	}
	return db, nil
}

// copyDB copies a database, and reads the copy back.
func copyDB(path string, src *bbolt.DB) (err error) {
	dst, err := bbolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return err
	}
	err = guardPanic(func() error { return bbolt.Compact(dst, src, compactBatch) })
	if err = errors.Join(err, dst.Sync(), dst.Close()); err != nil {
		return err
	}
	if err := verifyLogFile(path); err != nil {
		return err
	}
	if dst, err = bbolt.Open(path, 0o600, boltOptions()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	want, err := dbSum(src)
	if err != nil {
		return err
	}
	if got, err := dbSum(dst); err != nil || got != want {
		return errors.Join(fmt.Errorf("%w: the copy of %s differs", ErrCorrupt, DBFile), err)
	}
	return nil
}

// dbSum is a hash of all buckets, keys and values.
func dbSum(db *bbolt.DB) (sum uint64, err error) {
	h := xxhash.New()
	add := func(b []byte) { fmt.Fprintf(h, "%d:%s", len(b), b) } // a hash never fails
	err = guardPanic(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
				add(name)
				return b.ForEach(func(k, v []byte) error {
					add(k)
					add(v)
					return nil
				})
			})
		})
	})
	return h.Sum64(), err
}
