package rafttransport

import (
	"io"

	"github.com/hashicorp/raft"
)

// continueAfterSnapshot lets raft accept entries after an installed snapshot if its log
// goes beyond the snapshot, with entries that were never committed.
//
// Raft v1.8.0 cannot: it removes the log on disk but keeps the last index in memory. So
// it finds neither the previous entry that the leader names nor the conflicting
// entries, rejects the request, and gets the next snapshot, for ever
// (hashicorp/raft#697). Two changes prevent that. The log keeps the entries after the
// snapshot (see package raftlog), so that the disk matches raft's memory. And here the
// previous entry is compared with the snapshot, as in the Raft paper: what a snapshot
// covers is committed, so a leader's entry of the same index and term is the same
// entry. raft then finds the first conflicting entry and removes it and all later ones.
//
// limitCommit keeps the old tail from being committed. The node could not be elected
// with it: the tail has an older term than what a majority stored after it.
func (t *Transport) continueAfterSnapshot(node Node, command any) {
	m, ok := command.(*raft.AppendEntriesRequest)
	if !ok || m.PrevLogEntry == 0 || node.LastIndex() <= m.PrevLogEntry {
		return
	}
	if _, has := node.TermAt(m.PrevLogEntry); has || node.LastSnapshot() != (EntryID{m.PrevLogEntry, m.PrevLogTerm}) {
		return
	}
	m.PrevLogEntry, m.PrevLogTerm = 0, 0
}

// redundant answers a snapshot whose last entry is in the log, or that ends before this
// node's own snapshot, and keeps the entries after it, as in the Raft paper. raft
// itself would restore the snapshot and remove them all, even entries that are
// committed because this node acknowledged them.
//
// A leader sends no such snapshot, but one may arrive late. Example: a partition begins
// while a snapshot up to entry 100 is sent. The leader gives up, dials again after the
// partition, sends the snapshot again and then the entries 101 to 150, which this node
// acknowledges. Then the data of the first connection arrives.
//
// The answer does not depend on the main loop: what a snapshot covers is committed, and
// a committed entry stays in the log.
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
	t.wg.Go(func() { // until the caller has sent it, or Close closes the stream
		if rpc.Reader != nil {
			_, _ = io.Copy(io.Discard, rpc.Reader) // an error does not matter: the data is not needed
		}
		rpc.Respond(&raft.InstallSnapshotResponse{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte(t.LocalAddr())},
			Term:      node.CurrentTerm(), Success: true,
		}, nil)
	})
	return true
}
