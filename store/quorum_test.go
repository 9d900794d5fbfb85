package store

import (
	"testing"

	"github.com/hashicorp/raft"
)

func TestQuorumComparison(t *testing.T) {
	voter := func(id string) raft.Server { return raft.Server{ID: raft.ServerID(id), Suffrage: raft.Voter} }
	other := func(id string) raft.Server { return raft.Server{ID: raft.ServerID(id), Suffrage: raft.Nonvoter} }
	three := []raft.Server{voter("n1"), voter("n2"), voter("n3")}
	for name, c := range map[string]struct {
		servers []raft.Server
		own     uint64
		digests map[raft.ServerID]uint64
		want    agreement
		others  string
	}{
		"all alike":                       {three, 1, map[raft.ServerID]uint64{"n2": 1, "n3": 1}, agreed, ""},
		"no responses":                    {three, 1, nil, agreed, ""},
		"two against this one":            {three, 1, map[raft.ServerID]uint64{"n2": 2, "n3": 2}, inMinority, "n2, n3"},
		"this one and another":            {three, 1, map[raft.ServerID]uint64{"n2": 2, "n3": 1}, inMajority, "n2"},
		"three digests":                   {three, 1, map[raft.ServerID]uint64{"n2": 2, "n3": 3}, undecided, "n3"},
		"one against one, a third silent": {three, 1, map[raft.ServerID]uint64{"n2": 2}, undecided, "n2"},
		"two voters":                      {three[:2], 1, map[raft.ServerID]uint64{"n2": 2}, undecided, "n2"},
		"alone":                           {three[:1], 1, nil, agreed, ""},
		"a non-voter is no majority":      {[]raft.Server{voter("n1"), other("n2"), other("n3")}, 1, map[raft.ServerID]uint64{"n2": 2, "n3": 2}, inMajority, "n2, n3"},
		"this one is the non-voter":       {[]raft.Server{other("n1"), voter("n2")}, 1, map[raft.ServerID]uint64{"n2": 2}, inMinority, "n2"},
		"four, two against two":           {append([]raft.Server{voter("n4")}, three...), 1, map[raft.ServerID]uint64{"n2": 2, "n3": 2, "n4": 1}, undecided, "n2, n3"},
	} {
		responses := checkResponses{self: "n1", servers: c.servers, byID: make(map[raft.ServerID]CheckResponse)}
		for id, digest := range c.digests {
			responses.byID[id] = CheckResponse{Known: true, Digest: digest}
		}
		responses.byID["n9"] = CheckResponse{Known: true, Digest: 9} // not a server of the cluster
		r := responses.compare(c.own, func(a CheckResponse) (uint64, bool) { return a.Digest, a.Known })
		if r.agreement != c.want || names(r.others) != c.others {
			t.Errorf("%s: agreement %d against %q, want %d against %q", name, r.agreement, names(r.others), c.want, c.others)
		}
	}
}
