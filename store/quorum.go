package store

import (
	"strings"

	"github.com/hashicorp/raft"
)

// CheckRequest asks a node for its state digest at a check entry, and for the
// digests of its rings of some groups and fingerprints.
type CheckRequest struct {
	Index uint64
	Rings []RingDigest
}

// RingDigest is the digest of a ring's points. The fingerprint names what the
// ring was built from.
type RingDigest struct {
	Group       string
	Fingerprint uint64
	Digest      uint64
}

// CheckResponse is the answer to a [CheckRequest].
type CheckResponse struct {
	Version uint32 // of the digest; others than fsm.DigestVersion are not compared
	Known   bool   // whether Digest is known
	Digest  uint64
	Rings   []RingDigest // of those in the request, the ones that the node has
}

func (r CheckResponse) ring(of RingDigest) (uint64, bool) {
	for _, ring := range r.Rings {
		if ring.Group == of.Group && ring.Fingerprint == of.Fingerprint {
			return ring.Digest, true
		}
	}
	return 0, false
}

// agreement is the result of a quorum comparison for this node.
type agreement int

const (
	agreed     agreement = iota // no other digest was reported
	inMajority                  // some nodes differ, and a majority has this node's digest
	undecided                   // some nodes differ, and no digest has a majority
	inMinority                  // a majority has another digest
)

// checkResponses are the other nodes' responses to one check request.
type checkResponses struct {
	self    raft.ServerID
	servers []raft.Server
	byID    map[raft.ServerID]CheckResponse
}

// comparison is a result, with the nodes that have the other digest.
type comparison struct {
	agreement  agreement
	own, other uint64
	others     []raft.Server
}

// compare compares a digest by majority of the voters. Two of three that agree
// outweigh the third, even if it leads; a tie decides nothing. Non-voters do not
// count towards the majority.
func (c checkResponses) compare(own uint64, digestOf func(CheckResponse) (uint64, bool)) comparison {
	votes, voters := make(map[uint64]int), 0
	nodes := make(map[uint64][]raft.Server)
	var digests []uint64 // in the order of the servers, so that the result is deterministic
	for _, server := range c.servers {
		digest, ok := own, server.ID == c.self
		if !ok {
			var r CheckResponse
			if r, ok = c.byID[server.ID]; ok {
				digest, ok = digestOf(r)
			}
		}
		if server.Suffrage == raft.Voter {
			voters++
		}
		if !ok {
			continue
		}
		if nodes[digest] == nil {
			digests = append(digests, digest)
		}
		nodes[digest] = append(nodes[digest], server)
		if server.Suffrage == raft.Voter {
			votes[digest]++
		}
	}
	need := voters/2 + 1
	result := comparison{agreement: agreed, own: own, other: own}
	for _, digest := range digests {
		if digest == own {
			continue
		}
		if votes[digest] >= need {
			return comparison{agreement: inMinority, own: own, other: digest, others: nodes[digest]}
		}
		result = comparison{agreement: undecided, own: own, other: digest, others: nodes[digest]}
	}
	if result.agreement == undecided && votes[own] >= need {
		result.agreement = inMajority
	}
	return result
}

func names(servers []raft.Server) string {
	out := make([]string, len(servers))
	for i, server := range servers {
		out[i] = string(server.ID)
	}
	return strings.Join(out, ", ")
}
