package rafttransport

import (
	"errors"
	"math"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

func goodEntry(t *testing.T) []byte {
	data, err := fsm.Encode(&fsmpb.Command{Op: &fsmpb.Command_TermStart{TermStart: &fsmpb.TermStart{Node: "n1"}}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestMessagesThatRaftMustNotSee(t *testing.T) {
	data := goodEntry(t)
	flipped := append([]byte(nil), data...)
	flipped[len(flipped)-1] ^= 1
	voters := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "n1:7370"}}})
	entries := func(of ...*raft.Log) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 10, PrevLogTerm: 4, Entries: of}
	}
	snapshot := func(edit func(*raft.InstallSnapshotRequest)) *raft.InstallSnapshotRequest {
		m := &raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 5, LastLogIndex: 9, LastLogTerm: 4, Configuration: voters, Size: 1}
		edit(m)
		return m
	}
	for _, tc := range []struct {
		name    string
		command any
		good    bool
	}{
		{"a heartbeat", &raft.AppendEntriesRequest{Term: 5}, true},
		{"entries of all types", entries(
			&raft.Log{Index: 11, Term: 4, Type: raft.LogCommand, Data: data}, &raft.Log{Index: 12, Term: 5, Type: raft.LogNoop},
			&raft.Log{Index: 13, Term: 5, Type: raft.LogConfiguration, Data: voters}, &raft.Log{Index: 14, Term: 5, Type: raft.LogBarrier}), true},
		{"a snapshot", snapshot(func(*raft.InstallSnapshotRequest) {}), true},
		{"a vote", &raft.RequestVoteRequest{Term: 6}, true},
		{"a transfer", &raft.TimeoutNowRequest{}, true},
		{"a term after many elections", &raft.RequestVoteRequest{Term: 5 + maxTermJump}, true},

		{"a vote for the last term", &raft.RequestVoteRequest{Term: math.MaxUint64}, false},
		{"a pre-vote for the last term", &raft.RequestPreVoteRequest{Term: math.MaxUint64}, false},
		{"a heartbeat of the last term", &raft.AppendEntriesRequest{Term: math.MaxUint64}, false},
		{"a snapshot of the last term", snapshot(func(m *raft.InstallSnapshotRequest) { m.Term = math.MaxUint64 }), false},
		{"an entry that is not there", entries(nil), false},
		{"a hole", entries(&raft.Log{Index: 12, Term: 5, Type: raft.LogNoop}), false},
		{"a hole further on", entries(&raft.Log{Index: 11, Term: 5, Type: raft.LogNoop}, &raft.Log{Index: 13, Term: 5, Type: raft.LogNoop}), false},
		{"a term that falls", entries(&raft.Log{Index: 11, Term: 3, Type: raft.LogNoop}), false},
		{"an entry of a later term", entries(&raft.Log{Index: 11, Term: 6, Type: raft.LogNoop}), false},
		{"an unknown type", entries(&raft.Log{Index: 11, Term: 5, Type: 77}), false},
		{"a flipped bit", entries(&raft.Log{Index: 11, Term: 5, Type: raft.LogCommand, Data: flipped}), false},
		{"a command that is none", entries(&raft.Log{Index: 11, Term: 5, Type: raft.LogCommand, Data: []byte("x")}), false},
		{"a configuration that is none", entries(&raft.Log{Index: 11, Term: 5, Type: raft.LogConfiguration, Data: []byte("x")}), false},
		{"a snapshot's configuration that is none", snapshot(func(m *raft.InstallSnapshotRequest) { m.Configuration = []byte{0xc1} }), false},
		{"a snapshot of an old version", snapshot(func(m *raft.InstallSnapshotRequest) { m.SnapshotVersion = 0 }), false},
		{"a snapshot of negative size", snapshot(func(m *raft.InstallSnapshotRequest) { m.Size = -1 }), false},
		{"a snapshot of nothing", snapshot(func(m *raft.InstallSnapshotRequest) { m.LastLogIndex = 0 }), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := checkCall(5, tc.command)
			if (err == nil) != tc.good || err != nil && !errors.Is(err, errMessage) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// raft gets no commit index beyond the entries that its log then has in common with the
// leader's, also before Attach.
func TestCommitIndexOfAMessage(t *testing.T) {
	t.Parallel()
	data := goodEntry(t)
	entries := []*raft.Log{{Index: 6, Term: 3, Data: data}, {Index: 7, Term: 3, Data: data}}
	for name, c := range map[string]struct {
		entries      []*raft.Log
		commit, want uint64
	}{
		"before its end":              {entries, 6, 6},
		"beyond its entries":          {entries, 8, 7},
		"without entries, before it":  {nil, 4, 4},
		"without entries, and beyond": {nil, 8, 5},
	} {
		for _, attached := range []bool{true, false} {
			tr := newTestTransport()
			if attached {
				tr.attach(follower(3))
			}
			go tr.Pass(raft.RPC{Command: &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 5, PrevLogTerm: 3, Entries: c.entries, LeaderCommitIndex: c.commit}})
			if m, ok := (<-tr.Consumer()).Command.(*raft.AppendEntriesRequest); !ok || m.LeaderCommitIndex != c.want {
				t.Errorf("%s, attached %v: raft gets %+v, want commit index %d", name, attached, m, c.want)
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
