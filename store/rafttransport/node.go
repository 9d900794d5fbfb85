package rafttransport

import (
	"strconv"

	"github.com/hashicorp/raft"
)

// Node is what the transport reads of raft. It is safe for concurrent use.
type Node interface {
	State() raft.RaftState
	CurrentTerm() uint64
	CommitIndex() uint64
	// LastIndex is the last index of the log.
	LastIndex() uint64
	// TermAt is the term of an entry, if it is in the log.
	TermAt(index uint64) (term uint64, ok bool)
	// LastEntry is the last entry of the log, or of the snapshot if that is later.
	LastEntry() EntryID
	// LastSnapshot is the last entry of the newest snapshot.
	LastSnapshot() EntryID
	// Members is the latest configuration in the log.
	Members() []raft.Server
}

// EntryID identifies a log entry.
type EntryID struct{ Index, Term uint64 }

// before reports whether a log that ends with e is less up to date than one that ends
// with other, by the rule of the Raft paper.
func (e EntryID) before(other EntryID) bool {
	return e.Term < other.Term || e.Term == other.Term && e.Index < other.Index
}

// raftNode reads raft and its log.
type raftNode struct {
	*raft.Raft
	log raft.LogStore
}

func (r raftNode) TermAt(index uint64) (term uint64, ok bool) {
	var l raft.Log
	err := r.log.GetLog(index, &l)
	return l.Term, err == nil
}

func (r raftNode) Members() []raft.Server {
	return r.GetConfiguration().Configuration().Servers // its Error is always nil: it reads a copy
}

// LastEntry reads raft's statistics, which alone have the terms.
func (r raftNode) LastEntry() EntryID {
	stats := r.Stats()
	log, snapshot := statEnd(stats, "last_log"), statEnd(stats, "last_snapshot")
	if log.Index >= snapshot.Index {
		return log
	}
	return snapshot
}

func (r raftNode) LastSnapshot() EntryID { return statEnd(r.Stats(), "last_snapshot") }

func statEnd(stats map[string]string, name string) EntryID {
	index, _ := strconv.ParseUint(stats[name+"_index"], 10, 64) // raft wrote it
	term, _ := strconv.ParseUint(stats[name+"_term"], 10, 64)
	return EntryID{index, term}
}
