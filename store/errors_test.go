package store

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

func TestWriteError(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   error
		want error
	}{
		{"not leader", raft.ErrNotLeader, ErrNotLeader},
		{"no place in the queue", raft.ErrEnqueueTimeout, ErrBusy},
		{"handing over", raft.ErrLeadershipTransferInProgress, ErrBusy},
		{"leadership lost", raft.ErrLeadershipLost, ErrOutcomeUnknown},
		{"shut down", raft.ErrRaftShutdown, ErrOutcomeUnknown},
		{"replaced by a restore", raft.ErrAbortedByRestore, ErrOutcomeUnknown},
		{"an unknown error", errors.New("new"), ErrOutcomeUnknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := writeError(tc.in)
			for _, sentinel := range []error{ErrNotLeader, ErrBusy, ErrOutcomeUnknown} {
				if errors.Is(err, sentinel) != (sentinel == tc.want) {
					t.Errorf("%v is %v: %t", err, sentinel, errors.Is(err, sentinel))
				}
			}
			if !errors.Is(err, tc.in) {
				t.Errorf("%v hides its cause", err)
			}
		})
	}
	if writeError(nil) != nil {
		t.Error("no error became one")
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := canceled(ctx); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, cause) {
		t.Errorf("canceled: %v", err)
	}
}
