package store

import (
	"strings"

	"github.com/hashicorp/raft"
)

// Question asks a node what it had at a check entry, and how it built rings of
// stated fingerprints.
type Question struct {
	Index uint64
	Rings []RingMark
}

// RingMark is the digest of the points of a group's ring that was built from what
// the fingerprint names.
type RingMark struct {
	Group       string
	Fingerprint uint64
	Digest      uint64
}

// Answer is what a node had.
type Answer struct {
	Version uint32 // of the digest; others than fsm.DigestVersion do not count
	Known   bool   // whether Digest is known
	Digest  uint64
	Rings   []RingMark // of the asked ones, those that it has
}

func (a Answer) ring(of RingMark) (uint64, bool) {
	for _, r := range a.Rings {
		if r.Group == of.Group && r.Fingerprint == of.Fingerprint {
			return r.Digest, true
		}
	}
	return 0, false
}

// verdict is a node's word about itself.
type verdict int

const (
	agreed     verdict = iota // nobody says otherwise
	inMajority                // somebody differs, and a majority is of this node's opinion
	undecided                 // somebody differs, and there is no majority
	wrong                     // a majority is of another opinion
)

// ballot is the voters' and the other nodes' answers to one question.
type ballot struct {
	self    raft.ServerID
	servers []raft.Server
	answers map[raft.ServerID]Answer
}

// result says what was decided, and who has the other opinion.
type result struct {
	verdict    verdict
	own, other uint64
	others     []raft.Server
}

// judge counts the voters. Two of three that agree outweigh the third, also
// when that one leads; a tie decides nothing. Answers of non-voters are no votes.
func (b ballot) judge(own uint64, of func(Answer) (uint64, bool)) result {
	votes, voters := make(map[uint64]int), 0
	who := make(map[uint64][]raft.Server)
	var seen []uint64 // in the servers' order, so that the result has one
	for _, server := range b.servers {
		said, ok := own, server.ID == b.self
		if !ok {
			var a Answer
			if a, ok = b.answers[server.ID]; ok {
				said, ok = of(a)
			}
		}
		if server.Suffrage == raft.Voter {
			voters++
		}
		if !ok {
			continue
		}
		if who[said] == nil {
			seen = append(seen, said)
		}
		who[said] = append(who[said], server)
		if server.Suffrage == raft.Voter {
			votes[said]++
		}
	}
	need := voters/2 + 1
	r := result{verdict: agreed, own: own, other: own}
	for _, said := range seen {
		if said == own {
			continue
		}
		if votes[said] >= need {
			return result{verdict: wrong, own: own, other: said, others: who[said]}
		}
		r = result{verdict: undecided, own: own, other: said, others: who[said]}
	}
	if r.verdict == undecided && votes[own] >= need {
		r.verdict = inMajority
	}
	return r
}

func names(servers []raft.Server) string {
	out := make([]string, len(servers))
	for i, server := range servers {
		out[i] = string(server.ID)
	}
	return strings.Join(out, ", ")
}
