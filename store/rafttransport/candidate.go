package rafttransport

import (
	"slices"

	"github.com/hashicorp/raft"
)

// hearCandidate lets raft judge a candidate that its own configuration does not
// know as a voter, if that configuration may be old: the candidate's log goes
// beyond this node's, so it holds configurations that this node has not seen.
//
// Raft v1.8.0 refuses such candidates before it looks at anything else, so that
// a removed server does not disturb the cluster. But a node that was away while
// others were taken in and out may be needed for the majority. Example: n3 of
// n1, n2, n3 is down, n4 becomes a voter, n2 is removed, n1 dies, n3 comes back.
// n3 and n4 are two of three voters, n3's log is behind, so only n4 can lead, and
// n3 does not know it.
//
// Safety does not rest on that refusal. Raft as published (Ongaro's thesis, 4.1)
// has servers vote without looking at their configurations. What it rests on is
// left to raft: one vote a term, written to the disk; none for a candidate
// whose log is less up to date, which a removed server's is on every node that
// has the entry that removed it; the majority of the candidate's own
// configuration. A removed server whose log is not ahead is refused as before;
// none is heard by a node that knows a leader, and pre-votes keep its
// term from rising.
//
// What is changed is how raft is told who asks: a vote request without an id, as
// versions of raft sent them that it still speaks with, is judged by all but
// membership. A pre-vote promises nothing and changes nothing; raft reads its
// id only to look it up, so it gets one that passes.
func (t *Transport) hearCandidate(node Node, command any) {
	members := node.Members()
	voters := Voters(members)
	unknown := func(id []byte, last EntryID) bool {
		for _, v := range voters {
			if string(v.ID) == string(id) {
				return false
			}
		}
		return len(voters) > 0 && node.LastEntry().before(last)
	}
	switch m := command.(type) {
	case *raft.RequestVoteRequest:
		if unknown(m.ID, EntryID{m.LastLogIndex, m.LastLogTerm}) {
			m.ID = nil
		}
	case *raft.RequestPreVoteRequest:
		if unknown(m.ID, EntryID{m.LastLogIndex, m.LastLogTerm}) {
			m.ID = []byte(voters[0].ID)
		}
	}
}

// Voters returns the voters among the servers.
func Voters(servers []raft.Server) []raft.Server {
	return slices.DeleteFunc(slices.Clone(servers), func(v raft.Server) bool { return v.Suffrage != raft.Voter })
}
