package rafttransport

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
)

// maxTermJump is how far a message's term may be above the node's own. Terms rise by
// one per election. raft would store a term near the end of the range and could
// never elect a leader again.
const maxTermJump = 1 << 32

var errMessage = errors.New("raft message refused")

// checkCall rejects a message that raft must not receive. raft trusts its peers: a gap
// in the entries, an unreadable entry or an undecodable configuration ends the
// process, at once or when it is applied, on every node that stored it. A peer with
// corrupt memory or disk sends such messages, and so may an unknown peer that has the
// cluster id. An attacker can do as much with a valid message.
func checkCall(term uint64, command any) error {
	var err error
	switch m := command.(type) {
	case *raft.AppendEntriesRequest:
		err = errors.Join(checkTerm(term, m.Term), checkEntries(m))
	case *raft.RequestVoteRequest:
		err = checkTerm(term, m.Term)
	case *raft.RequestPreVoteRequest:
		err = checkTerm(term, m.Term)
	case *raft.InstallSnapshotRequest:
		err = errors.Join(checkTerm(term, m.Term), checkSnapshot(m))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	return nil
}

func checkTerm(own, term uint64) error {
	if term > own && term-own > maxTermJump {
		return fmt.Errorf("term %d, the node's is %d", term, own)
	}
	return nil
}

func checkEntries(m *raft.AppendEntriesRequest) error {
	term := m.PrevLogTerm
	for i, e := range m.Entries {
		if e == nil {
			return fmt.Errorf("entry %d of %d is missing", i, len(m.Entries))
		}
		if e.Index != m.PrevLogEntry+uint64(i)+1 || e.Index == 0 {
			return fmt.Errorf("entry %d is number %d after entry %d", e.Index, i+1, m.PrevLogEntry)
		}
		if e.Term < term || e.Term > m.Term {
			return fmt.Errorf("entry %d has term %d after term %d, in a message of term %d", e.Index, e.Term, term, m.Term)
		}
		term = e.Term
		if err := checkEntry(e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	return nil
}

func checkEntry(e *raft.Log) error {
	switch e.Type {
	case raft.LogCommand:
		return fsm.CheckEntry(e.Data)
	case raft.LogConfiguration:
		return checkConfiguration(e.Data)
	case raft.LogNoop, raft.LogBarrier:
		return nil
	default:
		return fmt.Errorf("unknown type %d", e.Type)
	}
}

func checkSnapshot(m *raft.InstallSnapshotRequest) error {
	if m.SnapshotVersion != raft.SnapshotVersionMax {
		return fmt.Errorf("snapshot version %d", m.SnapshotVersion)
	}
	if m.Size < 0 || m.LastLogIndex == 0 || m.LastLogTerm > m.Term {
		return fmt.Errorf("snapshot of %d bytes up to entry %d of term %d", m.Size, m.LastLogIndex, m.LastLogTerm)
	}
	return checkConfiguration(m.Configuration)
}

// limitCommit lowers the commit index of a message to the last entry up to which a node
// that accepts it has the leader's log, as in the Raft paper. Raft v1.8.0 lowers it to
// the end of the node's log only, and there may be entries of another leader.
//
// Example: a deposed leader has an entry 13 that was never committed. The next leader,
// with 12 entries, does not reach it, and pauses before it sends up to entry 12 again.
// Meanwhile it writes and commits an entry 13 of its own. The message is then without
// entries, after entry 12, with commit index 13, and the deposed leader would apply the
// entry 13 that it has.
func limitCommit(command any) {
	if m, ok := command.(*raft.AppendEntriesRequest); ok {
		m.LeaderCommitIndex = min(m.LeaderCommitIndex, m.PrevLogEntry+uint64(len(m.Entries))) // checkEntries: without gaps
	}
}

// checkConfiguration decodes as raft does, and recovers its panic.
func checkConfiguration(data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("configuration: %v", r)
		}
	}()
	for _, s := range raft.DecodeConfiguration(data).Servers {
		if s.ID == "" || s.Address == "" {
			return errors.New("configuration: a server without id or address")
		}
	}
	return nil
}
