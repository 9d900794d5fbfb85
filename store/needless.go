package store

import (
	"io"

	"github.com/hashicorp/raft"
)

// needless answers a snapshot whose last entry the log holds, or that ends before
// this node's own, as the Raft paper has it: the entries after it stay. Raft itself would go back to the snapshot and
// remove them all (see logStore.IsMonotonic), also those that this node
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
func (t *transport) needless(v raftView, rpc raft.RPC) bool {
	m, ok := rpc.Command.(*raft.InstallSnapshotRequest)
	if !ok || m.Term < v.CurrentTerm() || t.termAt == nil {
		return false
	}
	term, has := t.termAt(m.LastLogIndex)
	older := t.electorate != nil && m.LastLogIndex < t.electorate.LastSnapshot().index
	if !older && !(has && term == m.LastLogTerm) {
		return false
	}
	t.wg.Go(func() { // until the caller has sent it, or Close ends the stream
		if rpc.Reader != nil {
			_, _ = io.Copy(io.Discard, rpc.Reader) // one that breaks off is not needed either
		}
		rpc.Respond(&raft.InstallSnapshotResponse{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte(t.LocalAddr())},
			Term:      v.CurrentTerm(), Success: true,
		}, nil)
	})
	return true
}
