package rafttransport

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
)

// maxTermJump is how far a message's term may be above the node's own. Terms
// rise by one an election; a term near the end of its range, which raft would
// write down and could never count beyond, is not from this cluster.
const maxTermJump = 1 << 32

var errMessage = errors.New("raft message refused")

// checkCall says what keeps a message from raft's main loop. Raft trusts its
// peers: a hole in the entries, one that cannot be read, or a configuration that
// cannot be decoded ends the process, now or whenever it is applied, on every
// node that stored it. A peer whose memory or disk lies sends such messages, and
// so does a stranger who knows the cluster's id. It finds accidents: who means
// harm can do as much with a message that is well-formed.
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
		return fmt.Errorf("term %d at term %d", term, own)
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
			return fmt.Errorf("entry %d comes as number %d after %d", e.Index, i+1, m.PrevLogEntry)
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

// checkConfiguration decodes as raft does, which panics.
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
