package store

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store/raftlog"
)

// LogMove is the result of [MigrateLog].
type LogMove struct {
	From, To    string // raftlog.WAL or raftlog.Bolt; the same: nothing was to do
	First, Last uint64 // the entries moved; Last 0: the log is empty
}

// MigrateLog moves the log of a stopped node. The log is valid at every step:
// node.json names its kind, and is replaced atomically after the copy was read back.
// The next move, or the start of the node, removes the rest of an interrupted move.
func MigrateLog(dir, to string, logger *slog.Logger) (LogMove, error) {
	m := migration{dir: dir, to: to, log: logger, step: func(string) {}}
	if !raftlog.Valid(to) {
		return LogMove{}, &fsm.FieldError{Field: "to", Limit: raftlog.WAL + " or " + raftlog.Bolt, Got: to}
	}
	return m.run()
}

// migration is a move in progress.
type migration struct {
	dir, to     string
	log         *slog.Logger
	segmentSize int               // 0: the default
	batch       int               // entries at a time; 0: the default
	step        func(what string) // for tests: called after each step
}

func (m migration) run() (move LogMove, err error) {
	ident, err := storedIdentity(m.dir)
	if err != nil {
		return LogMove{}, err
	}
	files, err := raftlog.Lock(m.dir)
	if err != nil {
		return LogMove{}, unusable(m.dir, ident.ID, err)
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	if ident, err = storedIdentity(m.dir); err != nil { // again under the lock
		return LogMove{}, err
	}
	if err := files.Open(ident.logKind(), newRaftLogger(m.log), m.segmentSize); err != nil {
		return LogMove{}, unusable(m.dir, ident.ID, err)
	}
	move = LogMove{From: ident.logKind(), To: m.to}
	if move.First, move.Last, err = files.Verify(); err != nil {
		return move, unusable(m.dir, ident.ID, err)
	}
	if move.From == m.to {
		return move, files.DropOther()
	}
	if err := files.Move(m.to, raftlog.MoveConfig{Logger: newRaftLogger(m.log), SegmentSize: m.segmentSize, Batch: m.batch, Step: m.step}); err != nil {
		return move, fmt.Errorf("move the log in %s to %s: %w%s", m.dir, m.to, err, raftlog.Advice(err))
	}
	ident.setLogKind(m.to)
	if err := ident.save(m.dir); err != nil {
		return move, err
	}
	m.step("switched")
	err = files.DropOther()
	m.step("old log removed")
	return move, err
}
