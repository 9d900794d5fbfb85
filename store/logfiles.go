package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Where a node's log is. Term and vote are in raft.db with either.
const (
	// LogWAL: in segments, by hashicorp/raft-wal. One fsync a write.
	LogWAL = "wal"
	// LogBolt: in raft.db, by hashicorp/raft-boltdb. Two fsyncs a write.
	LogBolt = "boltdb"
	// DefaultLog is where the log of a new data directory is.
	DefaultLog = LogWAL
)

// ValidLog says whether it is one of the above.
func ValidLog(kind string) bool { return kind == LogWAL || kind == LogBolt }

// lockWait is how long to wait for another process to leave the directory.
const lockWait = time.Second

// openBolt checks and opens raft.db, whose lock is that of the directory.
func openBolt(dir string) (*raftboltdb.BoltStore, error) {
	if err := verifyLogFile(filepath.Join(dir, logFile)); err != nil {
		return nil, err
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, logFile),
		BoltOptions: &bbolt.Options{
			Timeout:        lockWait,
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", logFile, err)
	}
	return bolt, nil
}

// logFiles are the open files of the log and of what raft must not forget.
type logFiles struct {
	dir  string
	bolt *raftboltdb.BoltStore
	tail *tail
	wal  *walLog // nil: the entries are in bolt
}

// openRest opens what belongs to raft.db.
func (f *logFiles) openRest(kind string, logger hclog.Logger, segmentSize int) (err error) {
	if f.tail, err = openTail(f.dir); err != nil || kind != LogWAL {
		return err
	}
	f.wal, err = openWAL(f.dir, f.tail.mark(), logger, segmentSize)
	return err
}

// entries is the log as it is on the disk.
func (f *logFiles) entries() checkedLog {
	if f.wal != nil {
		return checkedLog{LogStore: f.wal, summed: true}
	}
	return checkedLog{LogStore: f.bolt}
}

func (f *logFiles) stable() checkedStable { return checkedStable{f.bolt} }

// dropOther removes what a move of the log left where the log is not. The log
// itself was verified before.
func (f *logFiles) dropOther() error {
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
	return errors.Join(os.RemoveAll(path), syncDir(f.dir))
}

// size is what the log takes on the disk, in bytes.
func (f *logFiles) size() (sum int64) {
	paths := []string{filepath.Join(f.dir, logFile)}
	if f.wal != nil {
		segments, _ := filepath.Glob(filepath.Join(f.dir, walDir, "*")) // the pattern is right
		paths = append(paths, segments...)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil { // else it was removed meanwhile
			sum += info.Size()
		}
	}
	return sum
}

// writes are those to the log and how long they took: pages of raft.db, and
// batches and truncations of segments.
func (f *logFiles) writes() (n uint64, took time.Duration) {
	stats := f.bolt.Stats().TxStats
	n, took = uint64(stats.GetWrite()), stats.GetWriteTime()
	if f.wal != nil {
		n, took = n+f.wal.writes.Load(), took+time.Duration(f.wal.took.Load())
	}
	return n, took
}

func (f *logFiles) close() error {
	var errs []error
	if f.wal != nil {
		errs = append(errs, f.wal.close())
	}
	if f.tail != nil {
		errs = append(errs, f.tail.close())
	}
	return errors.Join(append(errs, f.bolt.Close())...)
}
