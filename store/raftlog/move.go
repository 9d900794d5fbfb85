package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// MoveConfig configures [Files.Move]. The zero value is usable.
type MoveConfig struct {
	Logger      hclog.Logger
	SegmentSize int               // as in Open
	Batch       int               // entries at a time; 0: 1,024
	Step        func(what string) // called after each step; may be nil
}

// Move copies the log to the other kind, reads the copy back and uses it from then on.
// The old log stays until DropOther.
func (f *Files) Move(to string, cfg MoveConfig) error {
	first, last, err := f.Verify()
	if err != nil {
		return err
	}
	if cfg.Step == nil {
		cfg.Step = func(string) {}
	}
	m := move{MoveConfig: cfg, dir: f.dir, to: to, first: first, last: last}
	return m.run(f)
}

// move is a move in progress.
type move struct {
	MoveConfig
	dir, to     string
	first, last uint64
}

func (m move) run(files *Files) error {
	from, old := files.entries(), files.wal
	next := &Files{dir: m.dir, bolt: files.bolt, tail: files.tail}
	if err := m.emptyTarget(next); err != nil {
		return err
	}
	m.Step("target emptied")
	err := m.copyEntries(from, next.entries())
	if next.wal != nil {
		// Reopened, as at the next start.
		err = errors.Join(err, next.wal.close())
		if err == nil {
			next.wal, err = openWAL(m.dir, files.tail.mark(), m.Logger, m.SegmentSize)
		}
	}
	if err != nil {
		return err
	}
	if old == nil {
		files.wal = next.wal
	}
	m.Step("copied")
	first, last, err := next.Verify()
	if err == nil && (first != m.first || last != m.last) {
		err = fmt.Errorf("%w: the copy has entries %d to %d, the log has %d to %d", ErrCorrupt, first, last, m.first, m.last)
	}
	if err != nil || old == nil {
		return err
	}
	files.wal = nil
	return old.close()
}

// emptyTarget removes the rest of an earlier move from the target.
func (m move) emptyTarget(next *Files) (err error) {
	if m.to == Bolt {
		return next.bolt.DeleteRange(0, math.MaxUint64)
	}
	path := filepath.Join(m.dir, walDir)
	if err := os.RemoveAll(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next.wal, err = openWAL(m.dir, tailMark{}, m.Logger, m.SegmentSize)
	return err
}

const (
	// Bounds of one batch of the copy.
	maxCopyEntries = 1024
	maxCopyBytes   = 4 << 20
)

func (m move) copyEntries(from, to checkedLog) error {
	var batch []*raft.Log
	size := 0
	for i := m.first; i <= m.last; i++ {
		l := new(raft.Log)
		if err := from.GetLog(i, l); err != nil {
			return err
		}
		batch, size = append(batch, l), size+len(l.Data)
		if i < m.last && len(batch) < cmp.Or(m.Batch, maxCopyEntries) && size < maxCopyBytes {
			continue
		}
		if err := to.StoreLogs(batch); err != nil {
			return err
		}
		m.Step(fmt.Sprint("copied to ", i))
		batch, size = nil, 0
	}
	return nil
}
