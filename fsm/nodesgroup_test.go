package fsm

import (
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// The cluster's nodes are a group to read, which is no part of the state.
func TestNodesGroup(t *testing.T) {
	l := newLog(t)
	if g := l.m.State().NodesGroup(); g.Len() != 0 {
		t.Errorf("%d members of no nodes", g.Len())
	}
	l.must(setNode(&fsmpb.Node{Id: "n2", Bind: "n2:7370", Addr: "n2:9800"}))
	l.must(setNode(&fsmpb.Node{Id: "n1", Bind: "n1:7370", Addr: "n1:9800"}))
	s := l.m.State()
	g := s.GroupToRead(NodesGroupName)
	var got string
	for m := range g.Members {
		got += m.ID + "=" + m.Addr + " "
	}
	if got != "n1=n1:9800 n2=n2:9800 " || g.Revision != 2 || g.Points() != 512 {
		t.Errorf("%sat %d with %d points", got, g.Revision, g.Points())
	}
	if g.Fingerprint() != scratchFingerprint(g) || builtDigest(t, g) == 0 {
		t.Errorf("fingerprint %016x, its members give %016x", g.Fingerprint(), scratchFingerprint(g))
	}
	if s.GroupCount() != 0 || s.Group(NodesGroupName) != nil || s.MemberCount() != 0 {
		t.Error("it is in the state")
	}
	l.must(removeNode("n1"))
	if g := l.m.State().NodesGroup(); g.Len() != 1 {
		t.Errorf("%d members of one node", g.Len())
	}
}

// The revision changes with the nodes alone, on every node and across snapshots.
func TestRevisionOfTheNodesGroup(t *testing.T) {
	l := newLog(t)
	node := &fsmpb.Node{Id: "n1", Bind: "n1:7370", Addr: "n1:9800"}
	for _, tt := range []struct {
		name    string
		cmd     *fsmpb.Command
		changes bool
	}{
		{"a node comes", setNode(node), true},
		{"a member comes", register(newRegistration("web", "a", "10.0.0.1:80", "one")), false},
		{"the node says the same", setNode(node), false},
		{"a leader's first entry", termStart("n1"), false},
		{"the node moves", setNode(&fsmpb.Node{Id: "n1", Bind: "n1:7370", Addr: "n1:9801"}), true},
		{"an unknown node goes", removeNode("n2"), false},
		{"the node goes", removeNode("n1"), true},
		{"another comes", setNode(&fsmpb.Node{Id: "n3", Bind: "n3:7370", Addr: "n3:9800"}), true},
		{"a check", checkEntry(), false},
	} {
		before := l.m.State().NodesGroup().Revision
		index := l.must(tt.cmd).Index
		want := before
		if tt.changes {
			want = index
		}
		if got := l.m.State().NodesGroup().Revision; got != want {
			t.Errorf("%s, at index %d: revision %d, want %d", tt.name, index, got, want)
		}
		restored, err := ReadSnapshot(newReader(snapshotBytes(t, l.m.State())))
		if err != nil || restored.NodesGroup().Revision != want {
			t.Errorf("%s: %d after a restore, want %d, %v", tt.name, restored.NodesGroup().Revision, want, err)
		}
	}
}
