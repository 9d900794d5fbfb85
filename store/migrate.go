package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
)

// LogMove is what a move of a log did.
type LogMove struct {
	From, To    string // LogWAL or LogBolt; the same: there was nothing to do
	First, Last uint64 // entries that were moved; Last 0: the log is empty
}

// MigrateLog moves the log of a node that does not run. The log stays valid
// throughout: node.json says where it is, and changes at once, after the copy was
// read back. What an interrupted move leaves is removed by the next one, or when
// the node starts.
func MigrateLog(dir, to string, logger *slog.Logger) (LogMove, error) {
	m := migration{dir: dir, to: to, log: logger, segmentSize: walSegmentSize, batch: maxCopyEntries, step: func(string) {}}
	if !ValidLog(to) {
		return LogMove{}, &fsm.FieldError{Field: "to", Limit: LogWAL + " or " + LogBolt, Got: to}
	}
	return m.run()
}

// migration is a move under way.
type migration struct {
	dir, to     string
	log         *slog.Logger
	segmentSize int
	batch       int               // entries at a time
	step        func(what string) // tells a test how far it is
}

func (m migration) run() (move LogMove, err error) {
	ident, err := m.identity()
	if err != nil {
		return LogMove{}, err
	}
	bolt, err := openBolt(m.dir)
	if err != nil {
		return LogMove{}, unusable(m.dir, ident.ID, err)
	}
	files := &logFiles{dir: m.dir, bolt: bolt}
	defer func() { err = errors.Join(err, files.close()) }()
	if ident, err = m.identity(); err != nil { // again, under the lock
		return LogMove{}, err
	}
	if err := files.openRest(ident.logKind(), newRaftLogger(m.log), m.segmentSize); err != nil {
		return LogMove{}, unusable(m.dir, ident.ID, err)
	}
	move = LogMove{From: ident.logKind(), To: m.to}
	if move.First, move.Last, err = verifyLog(files.entries(), files.stable(), files.tail.mark()); err != nil {
		return move, unusable(m.dir, ident.ID, err)
	}
	if move.From == m.to {
		return move, files.dropOther()
	}
	if err := m.copy(files, move); err != nil {
		return move, fmt.Errorf("move the log in %s to %s: %w%s", m.dir, m.to, err, advice(err))
	}
	ident.setLogKind(m.to)
	if err := ident.save(m.dir); err != nil {
		return move, err
	}
	m.step("switched")
	err = files.dropOther()
	m.step("old log removed")
	return move, err
}

// identity reads whose directory it is, and that it has a log.
func (m migration) identity() (identity, error) {
	data, err := os.ReadFile(filepath.Join(m.dir, identityFile))
	if err != nil {
		return identity{}, fmt.Errorf("%w %s: not a node's: %w", ErrDataDir, m.dir, err)
	}
	ident, ok := parseIdentity(data)
	if !ok {
		return identity{}, fmt.Errorf("%w %s: %s is damaged", ErrDataDir, m.dir, identityFile)
	}
	for _, name := range ident.logNames() {
		if _, err := os.Stat(filepath.Join(m.dir, name)); err != nil {
			return identity{}, fmt.Errorf("%w %s: no log: %w", ErrDataDir, m.dir, err)
		}
	}
	return ident, nil
}

// copy copies the log, reads the copy back and makes files those of the copy.
func (m migration) copy(files *logFiles, move LogMove) error {
	from, old := files.entries(), files.wal
	next := &logFiles{dir: m.dir, bolt: files.bolt, tail: files.tail}
	if err := m.emptyTarget(next); err != nil {
		return err
	}
	m.step("target emptied")
	err := m.copyEntries(from, next.entries(), move)
	if next.wal != nil {
		// As the next start will find it.
		err = errors.Join(err, next.wal.close())
		if err == nil {
			next.wal, err = openWAL(m.dir, files.tail.mark(), newRaftLogger(m.log), m.segmentSize)
		}
	}
	if err != nil {
		return err
	}
	if old == nil {
		files.wal = next.wal
	}
	m.step("copied")
	first, last, err := verifyLog(next.entries(), next.stable(), next.tail.mark())
	if err == nil && (first != move.First || last != move.Last) {
		err = fmt.Errorf("%w: the copy has entries %d to %d of %d to %d", ErrCorrupt, first, last, move.First, move.Last)
	}
	if err != nil || old == nil {
		return err
	}
	files.wal = nil
	return old.close()
}

// emptyTarget removes what an earlier move left where this one writes.
func (m migration) emptyTarget(next *logFiles) (err error) {
	if m.to == LogBolt {
		return next.bolt.DeleteRange(0, math.MaxUint64)
	}
	path := filepath.Join(m.dir, walDir)
	if err := os.RemoveAll(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next.wal, err = openWAL(m.dir, tailMark{}, newRaftLogger(m.log), m.segmentSize)
	return err
}

const (
	// A batch of a copy is that many entries, or that many bytes.
	maxCopyEntries = 1024
	maxCopyBytes   = 4 << 20
)

func (m migration) copyEntries(from, to checkedLog, move LogMove) error {
	var batch []*raft.Log
	size := 0
	for i := move.First; i <= move.Last; i++ {
		l := new(raft.Log)
		if err := from.GetLog(i, l); err != nil {
			return err
		}
		batch, size = append(batch, l), size+len(l.Data)
		if i < move.Last && len(batch) < m.batch && size < maxCopyBytes {
			continue
		}
		if err := to.StoreLogs(batch); err != nil {
			return err
		}
		m.step(fmt.Sprint("copied to ", i))
		batch, size = nil, 0
	}
	return nil
}
