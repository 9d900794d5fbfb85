package store

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// Which node of which configuration may be recovered.
func TestSurvivorIsInTheConfiguration(t *testing.T) {
	voter, replica := raft.Voter, raft.Nonvoter
	for name, tt := range map[string]struct {
		self   raft.ServerSuffrage // of n1
		absent bool
		others []raft.ServerSuffrage
		before []string
		done   bool
		want   error
	}{
		"one of two voters":              {self: voter, others: []raft.ServerSuffrage{voter}},
		"a read replica":                 {self: replica, others: []raft.ServerSuffrage{voter}},
		"a node that was removed":        {absent: true, others: []raft.ServerSuffrage{voter, voter}, want: ErrMembership},
		"no configuration at all":        {absent: true, want: ErrMembership},
		"the only voter":                 {self: voter, want: ErrOnlyVoter},
		"the only voter, with a replica": {self: voter, others: []raft.ServerSuffrage{replica}, want: ErrOnlyVoter},
		"one that was recovered":         {self: voter, before: []string{"old"}, done: true},
		"recovered, and two again":       {self: voter, others: []raft.ServerSuffrage{voter}, before: []string{"old"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Recovery{Survivor: Survivor{ID: "n1"}, ident: identity{RecoveredFrom: tt.before}}
			var servers []raft.Server
			for i, suffrage := range tt.others {
				servers = append(servers, raft.Server{ID: raft.ServerID([]string{"n2", "n3"}[i]), Suffrage: suffrage})
			}
			if !tt.absent {
				servers = append(servers, raft.Server{ID: "n1", Suffrage: tt.self})
			}
			if err := r.setNodes(servers); !errors.Is(err, tt.want) || r.Done != tt.done || len(r.Nodes) != len(servers) {
				t.Errorf("%v, done %v, nodes %v; want %v", err, r.Done, r.Nodes, tt.want)
			}
		})
	}
}
