package store

import "github.com/hashicorp/raft"

// followSnapshot has raft go on after a snapshot that it was sent while its log
// went further, with entries that the cluster never committed.
//
// Raft v1.8.0 cannot: it removes the log on the disk and keeps in memory where it
// ended, so it finds neither the entry that the leader names as the one before
// nor those that conflict, refuses, and is sent the next snapshot, for ever
// (hashicorp/raft#697). Two things end that. The log keeps the entries after the
// snapshot (see logStore.DeleteRange), so that the disk is what raft takes it for;
// and here the check of the entry before is made against the snapshot, as the Raft
// paper has it: what a snapshot covers is committed, so a leader's entry of that index
// and term is the very one. Raft then finds the first entry that conflicts and
// removes it and all that follow, by itself.
//
// The commit index goes no further than what the message proves to be the
// leader's. The node could have been elected by its old tail at no time: that has
// an older term than what a majority stored after it.
func (t *transport) followSnapshot(view raftView, command any) {
	m, ok := command.(*raft.AppendEntriesRequest)
	if !ok || m.PrevLogEntry == 0 || t.electorate == nil || t.termAt == nil || view.LastIndex() <= m.PrevLogEntry {
		return
	}
	if _, has := t.termAt(m.PrevLogEntry); has || t.electorate.LastSnapshot() != (logEnd{m.PrevLogEntry, m.PrevLogTerm}) {
		return
	}
	proven := m.PrevLogEntry + uint64(len(m.Entries)) // checkEntries: without gaps
	m.PrevLogEntry, m.PrevLogTerm = 0, 0
	m.LeaderCommitIndex = min(m.LeaderCommitIndex, proven)
}
