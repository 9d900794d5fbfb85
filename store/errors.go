package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/raftlog"
)

// Errors of the store, besides those of package fsm.
var (
	// ErrNotLeader: this node does not lead; nothing was done.
	ErrNotLeader = errors.New("not the leader")
	// ErrBusy: the leader did not accept the write in time; nothing was done.
	ErrBusy = errors.New("leader is busy")
	// ErrOutcomeUnknown: the write may or may not take effect.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrForgotten is an ErrOutcomeUnknown that no retry can resolve: the leader no
	// longer remembers requests as old as the first attempt.
	ErrForgotten = fmt.Errorf("%w: it is not known whether an earlier attempt took effect", ErrOutcomeUnknown)
	// ErrNotReady: the node has not caught up with the cluster since it started.
	ErrNotReady = errors.New("node has not caught up yet")
	// ErrDiverged: the node's state differs from the majority's, and the node
	// answers nothing until it has installed that one; nothing was done.
	ErrDiverged = errors.New("this node's state is not the cluster's")
	// ErrCorrupt: what is on disk is not what was written; the node fails.
	ErrCorrupt = raftlog.ErrCorrupt
	// ErrDiskLow: too little disk is free for new members and groups; nothing was
	// done. Such an error is a [DiskLowError].
	ErrDiskLow = errors.New("disk is nearly full")
	// ErrMembership: the node and the cluster do not match, or the change of members is refused.
	ErrMembership = errors.New("cluster membership")
	// ErrLeft: the node was asked to leave its cluster, and was removed; it ends.
	ErrLeft = errors.New("left the cluster")
	// ErrUnknownNode: the cluster has no such node.
	ErrUnknownNode = errors.New("unknown node")
	// ErrDataDir: the data directory cannot be used.
	ErrDataDir = errors.New("data directory")
	// ErrStorage: a write of the log failed; the node fails.
	ErrStorage = raftlog.ErrStorage
	// ErrStuck: the node led and committed nothing; the node fails.
	ErrStuck = errors.New("leader makes no progress")
	// ErrInUse: another process uses the data directory.
	ErrInUse = raftlog.ErrInUse
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// writeError maps raft's errors to the outcome of the entry.
func writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	default: // leadership lost, shut down, aborted by a restore, and unknown errors
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
}

// canceled is the outcome of a write whose caller stopped waiting.
func canceled(ctx context.Context) error {
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
}
