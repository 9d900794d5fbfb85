package rafttransport

import (
	"io"

	"github.com/hashicorp/raft"
)

// followSnapshot has raft go on after a snapshot that it was sent while its log
// went further, with entries that the cluster never committed.
//
// Raft v1.8.0 cannot: it removes the log on the disk and keeps in memory where it
// ended, so it finds neither the entry that the leader names as the one before
// nor those that conflict, refuses, and is sent the next snapshot, for ever
// (hashicorp/raft#697). Two things end that. The log keeps the entries after the
// snapshot (see package raftlog), so that the disk is what raft takes it for;
// and here the check of the entry before is made against the snapshot, as the Raft
// paper has it: what a snapshot covers is committed, so a leader's entry of that index
// and term is the very one. Raft then finds the first entry that conflicts and
// removes it and all that follow, by itself.
//
// The commit index goes no further than what the message proves to be the
// leader's. The node could have been elected by its old tail at no time: that has
// an older term than what a majority stored after it.
func (t *Transport) followSnapshot(node Node, command any) {
	m, ok := command.(*raft.AppendEntriesRequest)
	if !ok || m.PrevLogEntry == 0 || node.LastIndex() <= m.PrevLogEntry {
		return
	}
	if _, has := node.TermAt(m.PrevLogEntry); has || node.LastSnapshot() != (EntryID{m.PrevLogEntry, m.PrevLogTerm}) {
		return
	}
	proven := m.PrevLogEntry + uint64(len(m.Entries)) // checkEntries: without gaps
	m.PrevLogEntry, m.PrevLogTerm = 0, 0
	m.LeaderCommitIndex = min(m.LeaderCommitIndex, proven)
}

// redundant answers a snapshot whose last entry the log holds, or that ends before
// this node's own, as the Raft paper has it: the entries after it stay. Raft itself
// would go back to the snapshot and remove them all, also those that this node
// acknowledged and that are committed because it did, while it goes on counting
// from where its log ended.
//
// A leader sends no such snapshot, but one may come late. Example: a partition
// begins while a snapshot up to 100 is sent. The leader gives up, dials anew when
// the partition is over, sends it again and then the entries 101 to 150, which
// this node acknowledges. Now the network brings what lay in the first
// connection.
//
// The answer does not depend on what the main loop does meanwhile: what a
// snapshot covers is committed, and a committed entry stays in the log.
func (t *Transport) redundant(node Node, rpc raft.RPC) bool {
	m, ok := rpc.Command.(*raft.InstallSnapshotRequest)
	if !ok || m.Term < node.CurrentTerm() {
		return false
	}
	term, has := node.TermAt(m.LastLogIndex)
	older := m.LastLogIndex < node.LastSnapshot().Index
	if !older && !(has && term == m.LastLogTerm) {
		return false
	}
	t.wg.Go(func() { // until the caller has sent it, or Close ends the stream
		if rpc.Reader != nil {
			_, _ = io.Copy(io.Discard, rpc.Reader) // one that breaks off is not needed either
		}
		rpc.Respond(&raft.InstallSnapshotResponse{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte(t.LocalAddr())},
			Term:      node.CurrentTerm(), Success: true,
		}, nil)
	})
	return true
}
