package rafttransport

import (
	"slices"

	"github.com/hashicorp/raft"
)

// admitCandidate lets raft consider a candidate that is no voter in this node's
// configuration, if that configuration may be stale: the candidate's log is ahead of
// this node's, so it may have newer configurations.
//
// Raft v1.8.0 rejects such candidates before any other check, so that a removed server
// does not disturb the cluster. But a node that was down during changes of members may
// be needed for the majority. Example: n3 of n1, n2, n3 is down, n4 becomes a voter,
// n2 is removed, n1 crashes, n3 comes back. n3 and n4 are two of three voters, n3's
// log is behind, so only n4 can lead, and n4 is not in n3's configuration.
//
// Safety does not depend on that rejection. In Raft as published (Ongaro's thesis,
// 4.1) servers vote regardless of their configurations. What safety depends on is
// left to raft: one vote per term, on disk; no vote for a candidate whose log is less
// up to date, as a removed server's is on every node with the entry of its removal;
// a majority of the candidate's own configuration. A removed server whose log is not
// ahead is still rejected. A node that has a leader rejects every candidate, and
// pre-votes keep the term from rising.
//
// The change is in the message: raft checks a vote request without an id, as older
// versions sent it, by everything except membership. A pre-vote changes no state, and
// raft only looks its id up, so it gets the id of a voter.
func (t *Transport) admitCandidate(node Node, command any) {
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
