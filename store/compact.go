package store

import (
	"errors"
	"fmt"

	"github.com/werbenhu/registry/store/raftlog"
)

// ErrNothingToCompact: the log is in segments, and raft.db is small.
var ErrNothingToCompact = errors.New("nothing to compact")

// CompactLog rewrites raft.db of a stopped node without its free pages, and returns its
// size in bytes before and after, which are equal if there is too little to gain. A crash
// leaves the old file or the new one. Segments need none: they are removed as a whole
// when a snapshot covers them, and raft.db of such a node is large only after a move.
func CompactLog(dir string) (before, after int64, err error) {
	ident, err := storedIdentity(dir)
	if err != nil {
		return 0, 0, err
	}
	before, after, err = raftlog.Compact(dir)
	switch {
	case err != nil && !errors.Is(err, ErrCorrupt):
		return before, after, fmt.Errorf("%w %s: %w%s", ErrDataDir, dir, err, raftlog.Advice(err))
	case err != nil:
		return before, after, unusable(dir, ident.ID, err)
	case before == after && ident.logKind() == raftlog.WAL:
		return before, after, fmt.Errorf("%w: the log in %s is in segments, which are removed when a snapshot covers them, and %s has term and vote alone, %d bytes",
			ErrNothingToCompact, dir, raftlog.DBFile, before)
	}
	return before, after, nil
}
