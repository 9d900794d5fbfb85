package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Kinds of log. Term and vote are in raft.db with either.
const (
	// WAL: in segments, by hashicorp/raft-wal. One fsync a write.
	WAL = "wal"
	// Bolt: in raft.db, by hashicorp/raft-boltdb. Two fsyncs a write.
	Bolt = "boltdb"
	// Default is the kind of log of a new data directory.
	Default = WAL
)

// Valid reports whether it is one of the above.
func Valid(kind string) bool { return kind == WAL || kind == Bolt }

// Names are the files that a log of that kind must have.
func Names(kind string) []string {
	if kind == WAL {
		return []string{DBFile, filepath.Join(walDir, walList)}
	}
	return []string{DBFile}
}

// DBFile has term and vote, and the log itself with Bolt.
const DBFile = "raft.db"

// lockWait is how long to wait for the lock of the directory.
const lockWait = time.Second

// Lock checks and opens raft.db, whose lock is that of the data directory. Errors
// are [ErrInUse], an [ErrCorrupt], and those of the file system.
func Lock(dir string) (*Files, error) {
	bolt, err := openBolt(dir)
	if err != nil {
		return nil, err
	}
	return &Files{dir: dir, bolt: bolt}, nil
}

func openBolt(dir string) (*raftboltdb.BoltStore, error) {
	return openBoltAnd(dir, func(int) {})
}

// openBoltAnd tries again while the lock turns out to be that of a file which a
// compaction has replaced since. opened is called after each try, for tests.
func openBoltAnd(dir string, opened func(try int)) (*raftboltdb.BoltStore, error) {
	path := filepath.Join(dir, DBFile)
	for try := 0; ; try++ {
		before, missing := os.Stat(path)
		bolt, err := tryBolt(path)
		if err != nil {
			return nil, err
		}
		opened(try)
		now, err := os.Stat(path)
		if err == nil && (missing != nil || os.SameFile(before, now)) {
			return bolt, nil
		}
		if err := errors.Join(err, bolt.Close()); err != nil {
			return nil, err
		}
	}
}

func tryBolt(path string) (*raftboltdb.BoltStore, error) {
	if err := verifyLogFile(path); err != nil {
		return nil, err
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions(), MsgpackUseNewTimeFormat: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", DBFile, err)
	}
	return bolt, nil
}

// Files are the open files of log, term and vote.
type Files struct {
	dir  string
	bolt *raftboltdb.BoltStore
	tail *tail
	wal  *walLog // nil: the entries are in bolt

	commits *Commits // nil: not open
}

// Open opens the log. segmentSize is in bytes; 0: 16 MiB. Damage is an [ErrCorrupt].
func (f *Files) Open(kind string, logger hclog.Logger, segmentSize int) (err error) {
	if f.tail, err = openTail(f.dir); err != nil || kind != WAL {
		return err
	}
	f.wal, err = openWAL(f.dir, f.tail.mark(), logger, segmentSize)
	return err
}

// entries is the log on disk.
func (f *Files) entries() checkedLog {
	return checkedLog{LogStore: f.Unchecked(), summed: f.wal != nil}
}

func (f *Files) stable() checkedStable { return checkedStable{f.bolt} }

// Entries is the log on disk.
func (f *Files) Entries() raft.LogStore { return f.entries() }

// Unchecked is Entries without the verification of checksums.
func (f *Files) Unchecked() raft.LogStore {
	if f.wal != nil {
		return f.wal
	}
	return f.bolt
}

// Verify reads every entry, and term and vote. It returns the last index and the first
// index from which the log has no gap, or an [ErrCorrupt] if anything that was written
// is missing or changed.
func (f *Files) Verify() (from, last uint64, err error) {
	return verifyLog(f.entries(), f.stable(), f.tail.mark())
}

// GuardConfig configures [Files.Guard].
type GuardConfig struct {
	Watchdog
	Snapshots *Snapshots
	Writing   func([]*raft.Log)  // called before entries are written; may be nil
	Wrote     func(index uint64) // called with the last entry after they were; may be nil
	// WrapLog and WrapStable, if set, inject faults.
	WrapLog    func(raft.LogStore) raft.LogStore
	WrapStable func(raft.StableStore) raft.StableStore
}

// Guard returns log, term and vote for raft: a failed or hanging write and a damaged
// entry end the node.
func (f *Files) Guard(cfg GuardConfig) (raft.LogStore, raft.StableStore, error) {
	cached, err := raft.NewLogCache(cachedEntries, f.entries())
	if err != nil {
		return nil, nil, fmt.Errorf("log cache: %w", err)
	}
	logs := &logStore{LogStore: cached, Watchdog: cfg.Watchdog, tail: f.tail, keepFrom: cfg.Snapshots.Oldest, covered: cfg.Snapshots.Newest, writing: cfg.Writing, wrote: cfg.Wrote}
	if cfg.WrapLog != nil {
		logs.LogStore = cfg.WrapLog(cached)
	}
	stable := &stableStore{StableStore: f.stable(), Watchdog: cfg.Watchdog, tail: f.tail}
	if cfg.WrapStable != nil {
		stable.StableStore = cfg.WrapStable(f.stable())
	}
	return logs, stable, nil
}

// cachedEntries is how many of the last entries are kept in memory, for followers.
const cachedEntries = 1024

// DropOther removes the rest of a log of the other kind, after a move. The caller has
// verified the log itself.
func (f *Files) DropOther() error {
	if f.wal != nil {
		last, err := f.bolt.LastIndex()
		if err != nil || last == 0 {
			return err
		}
		return f.bolt.DeleteRange(0, math.MaxUint64)
	}
	path := filepath.Join(f.dir, walDir)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(os.RemoveAll(path), SyncDir(f.dir))
}

// DB is the statistics of bbolt.
func (f *Files) DB() bbolt.Stats { return f.bolt.Stats() }

// Size is the size of the log on disk, in bytes.
func (f *Files) Size() (sum int64) {
	paths := []string{filepath.Join(f.dir, DBFile)}
	if f.wal != nil {
		segments, _ := filepath.Glob(filepath.Join(f.dir, walDir, "*")) // the pattern is valid
		paths = append(paths, segments...)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil { // else it was removed meanwhile
			sum += info.Size()
		}
	}
	return sum
}

// Writes is the number of writes to the log and their total time: pages of raft.db,
// and batches and truncations of segments.
func (f *Files) Writes() (n uint64, took time.Duration) {
	stats := f.bolt.Stats().TxStats
	n, took = uint64(stats.GetWrite()), stats.GetWriteTime()
	if f.wal != nil {
		n, took = n+f.wal.writes.Load(), took+time.Duration(f.wal.took.Load())
	}
	return n, took
}

// Close closes the files and releases the lock. It may be called again.
func (f *Files) Close() error {
	var errs []error
	if f.wal != nil {
		errs = append(errs, f.wal.close())
	}
	if f.tail != nil {
		errs = append(errs, f.tail.close())
	}
	if f.commits != nil {
		errs = append(errs, f.commits.close())
	}
	return errors.Join(append(errs, f.bolt.Close())...)
}
