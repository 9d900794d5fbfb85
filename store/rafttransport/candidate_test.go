package rafttransport

import (
	"testing"

	"github.com/hashicorp/raft"
)

// A candidate that is no voter is considered only if its log is ahead of this node's.
func TestAdmitCandidate(t *testing.T) {
	t.Parallel()
	members := []raft.Server{
		{Suffrage: raft.Nonvoter, ID: "n0", Address: "n0:1"}, {ID: "n1", Address: "n1:1"}, {ID: "n2", Address: "n2:1"},
	}
	for name, c := range map[string]struct {
		members  []raft.Server
		id       string
		last     EntryID
		admitted bool
	}{
		"a voter":                       {members, "n2", EntryID{11, 3}, false},
		"an unknown node, later term":   {members, "n4", EntryID{9, 4}, true},
		"an unknown node, longer log":   {members, "n4", EntryID{11, 3}, true},
		"an unknown node, the same log": {members, "n4", EntryID{10, 3}, false},
		"an unknown node, shorter log":  {members, "n4", EntryID{9, 3}, false},
		"an unknown node, earlier term": {members, "n4", EntryID{99, 2}, false},
		"a non-voter, longer log":       {members, "n0", EntryID{11, 3}, true},
		"a node without configuration":  {nil, "n4", EntryID{11, 3}, false},
		"a configuration without voter": {members[:1], "n4", EntryID{11, 3}, false},
	} {
		tr, node := &Transport{}, &fakeNode{members: c.members, last: EntryID{10, 3}}
		vote := &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte(c.id)}, LastLogIndex: c.last.Index, LastLogTerm: c.last.Term}
		pre := &raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte(c.id)}, LastLogIndex: c.last.Index, LastLogTerm: c.last.Term}
		tr.admitCandidate(node, vote)
		tr.admitCandidate(node, pre)
		wantVote, wantPre := c.id, c.id
		if c.admitted {
			wantVote, wantPre = "", "n1"
		}
		if string(vote.ID) != wantVote || string(pre.ID) != wantPre {
			t.Errorf("%s: raft gets %q and %q, want %q and %q", name, vote.ID, pre.ID, wantVote, wantPre)
		}
	}
}
