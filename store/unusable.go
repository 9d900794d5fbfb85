package store

import (
	"errors"
	"fmt"

	"github.com/werbenhu/registry/store/raftlog"
)

// unusable adds what to do about a data directory that cannot be used.
func unusable(dir, id string, cause error) error {
	if !errors.Is(cause, ErrCorrupt) {
		return fmt.Errorf("%w %s: %w%s", ErrDataDir, dir, cause, raftlog.Advice(cause))
	}
	return fmt.Errorf("%w %s: %w; a node must not vote on damaged or lost data. With the disk in order, "+
		"remove the node with: registry cluster remove %s, and start it with an empty -data-dir and -registries; "+
		"it gets all data from the others (a cluster of one node has no others: restore the directory from a backup)", ErrDataDir, dir, cause, id)
}
