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
	if got != "n1=n1:9800 n2=n2:9800 " || g.Revision != s.Index() || g.Points() != 512 {
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
