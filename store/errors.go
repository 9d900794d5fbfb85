package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/raftlog"
)

// What a call to the store can answer besides the errors of package fsm.
var (
	// ErrNotLeader: this node does not lead; nothing was done.
	ErrNotLeader = errors.New("not the leader")
	// ErrBusy: the leader did not accept the write in time; nothing was done.
	ErrBusy = errors.New("leader is busy")
	// ErrOutcomeUnknown: the write may or may not take effect.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrForgotten is an ErrOutcomeUnknown that no further attempt can cure: the
	// leader does not remember writes as old as the first attempt.
	ErrForgotten = fmt.Errorf("%w: it is not known whether an earlier attempt took effect", ErrOutcomeUnknown)
	// ErrNotReady: the node has not caught up with the cluster since it started.
	ErrNotReady = errors.New("node has not caught up yet")
	// ErrDiverged: the node's state was found to differ from the others', and
	// it answers nothing until it has the right one; nothing was done.
	ErrDiverged = errors.New("this node's state is not the cluster's")
	// ErrCorrupt: what is on disk is not what was written; the node ends.
	ErrCorrupt = raftlog.ErrCorrupt
	// ErrDiskLow: too little disk is free for anything that makes the state
	// grow; nothing was done. It comes as a [DiskLowError].
	ErrDiskLow = errors.New("disk is nearly full")
	// ErrMembership: a node does not fit the cluster, or the cluster the node.
	ErrMembership = errors.New("cluster membership")
	// ErrUnknownNode: the cluster has no such node.
	ErrUnknownNode = errors.New("unknown node")
	// ErrDataDir: the data directory cannot be used.
	ErrDataDir = errors.New("data directory")
	// ErrStorage: writing the log failed; the node ends.
	ErrStorage = raftlog.ErrStorage
	// ErrStuck: the node led and committed nothing; the node ends.
	ErrStuck = errors.New("leader makes no progress")
	// ErrInUse: another process uses the data directory.
	ErrInUse = raftlog.ErrInUse
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// writeError sorts raft's errors by what became of the entry.
func writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	default: // leadership lost, shut down, aborted by a restore, and what comes new
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
}

// givenUp is the outcome of a write whose caller stopped waiting.
func givenUp(ctx context.Context) error {
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
}
