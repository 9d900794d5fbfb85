package rafttransport

import (
	"strconv"

	"github.com/hashicorp/raft"
)

// Node is what the transport reads of raft. It is safe on any goroutine.
type Node interface {
	State() raft.RaftState
	CurrentTerm() uint64
	CommitIndex() uint64
	// LastIndex is where the log ends.
	LastIndex() uint64
	// TermAt is the term of an entry that the log holds.
	TermAt(index uint64) (term uint64, ok bool)
	// LastEntry is where the log, or the snapshot if it goes further, ends.
	LastEntry() EntryID
	// LastSnapshot is where the snapshot ends that the state began with, or that
	// was made since.
	LastSnapshot() EntryID
	// Members is the latest configuration that the log holds.
	Members() []raft.Server
}

// EntryID identifies a log entry.
type EntryID struct{ Index, Term uint64 }

// before says that a log that ends there is less up to date than the other, as the Raft
// paper compares them.
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

// LastEntry is the later of the ends of log and snapshot; raft tells both in
// its statistics only.
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
