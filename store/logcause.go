package store

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/rafttransport"
)

// raftRules lower the level of raft's warnings and errors about normal events: a
// node starts, joins or stops, or an idle connection is closed. With another cause
// the same message keeps its level. raft still warns of each voter that the leader
// has not reached for an election timeout («failed to contact»).
var raftRules = map[string]raftRule{
	// Connections end: the peer stops, or one side closes an idle connection.
	"failed to decode incoming command": {hclog.Debug, connectionEnded},
	"failed to flush response":          {hclog.Debug, connectionEnded},

	// A peer that stops, or does not belong to the cluster yet, accepts no calls.
	"failed to appendEntries to":              {hclog.Info, unreachable},
	"failed to heartbeat to":                  {hclog.Info, unreachable},
	"failed to pipeline appendEntries":        {hclog.Info, unreachable},
	"failed to start pipeline replication to": {hclog.Info, unreachable},
	"failed to make requestVote RPC":          {hclog.Info, unreachable},
	"failed to install snapshot":              {hclog.Info, unreachable},
	"failed to send snapshot to":              {hclog.Info, unreachable},

	// A node that joins has no entries yet; the leader searches the index to start at.
	"failed to get previous log":                          {hclog.Info, func(args []any) bool { return errors.Is(argError(args), raft.ErrLogNotFound) }},
	"appendEntries rejected, sending older logs":          {hclog.Info, always},
	"peer has newer term, stopping replication":           {hclog.Info, always},
	"no known peers, aborting election":                   {hclog.Info, always}, // it waits to join
	"not part of stable configuration, aborting election": {hclog.Info, always},
	"heartbeat timeout reached, not part of a stable configuration or a non-voter, not triggering a leader election": {hclog.Info, noLeaderBefore},

	// Elections: the first one, and split votes.
	"heartbeat timeout reached, starting election":               {hclog.Info, noLeaderBefore},
	"rejecting vote request since we have a leader":              {hclog.Info, always},
	"rejecting pre-vote request since we have a leader":          {hclog.Info, always},
	"rejecting vote request since our last term is greater":      {hclog.Info, always},
	"rejecting pre-vote request since our last term is greater":  {hclog.Info, always},
	"rejecting vote request since our last index is greater":     {hclog.Info, always},
	"rejecting pre-vote request since our last index is greater": {hclog.Info, always},
}

type raftRule struct {
	level hclog.Level
	when  func(args []any) bool
}

// The first restarts of an election are split votes; more of them mean that there is
// no majority.
const (
	electionBegins   = "heartbeat timeout reached, starting election"
	electionRestarts = "Election timeout reached, restarting election"
	splitVotes       = 3
)

// levelOf is the level of a message, given its cause.
func (r *repeats) levelOf(level hclog.Level, msg string, args []any) hclog.Level {
	switch msg {
	case electionBegins:
		r.restarts.Store(0)
	case electionRestarts:
		if r.restarts.Add(1) <= splitVotes {
			return hclog.Info
		}
	}
	if rule, ok := raftRules[msg]; ok && level > rule.level && rule.when(args) {
		return rule.level
	}
	return level
}

func always([]any) bool { return true }

func arg(args []any, name string) any {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == name {
			return args[i+1]
		}
	}
	return nil
}

func argError(args []any) error {
	err, _ := arg(args, "error").(error)
	return err
}

func noLeaderBefore(args []any) bool { return fmt.Sprint(arg(args, "last-leader-addr")) == "" }

func connectionEnded(args []any) bool { return endOfConnection(argError(args)) }

func unreachable(args []any) bool {
	err := argError(args)
	var timeout net.Error
	return endOfConnection(err) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, rafttransport.ErrNoCluster) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

var connectionEnds = []error{
	io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, os.ErrDeadlineExceeded,
	syscall.ECONNRESET, syscall.EPIPE, raft.ErrTransportShutdown, raft.ErrPipelineShutdown,
}

func endOfConnection(err error) bool {
	for err != nil {
		for _, end := range connectionEnds {
			if errors.Is(err, end) {
				return true
			}
		}
		caused, ok := err.(interface{ Cause() error }) // the codec's errors, which do not unwrap
		if !ok {
			// The other side's raft stops; only the error's text comes over the wire.
			return strings.Contains(err.Error(), raft.ErrRaftShutdown.Error()) || strings.Contains(err.Error(), raft.ErrTransportShutdown.Error())
		}
		err = caused.Cause()
	}
	return false
}
