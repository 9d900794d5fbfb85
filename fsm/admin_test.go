package fsm

import (
	"errors"
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

func TestUpdateMember(t *testing.T) {
	for _, tc := range []struct {
		name       string
		cmd        *fsmpb.Command
		want       error
		weight     uint32
		state      ring.State
		noRevision bool // no visible change
	}{
		{name: "weight", cmd: updateMember("web", "a", 5, 0), weight: 5},
		{name: "state", cmd: updateMember("web", "a", 0, uint32(ring.Draining)+1), weight: 2, state: ring.Draining},
		{name: "both", cmd: updateMember("web", "a", 9, uint32(ring.Held)+1), weight: 9, state: ring.Held},
		{name: "as it is", cmd: updateMember("web", "a", 2, uint32(ring.Active)+1), weight: 2, noRevision: true},
		{name: "nothing", cmd: updateMember("web", "a", 0, 0), weight: 2, noRevision: true},
		{name: "unknown group", cmd: updateMember("db", "a", 5, 0), want: ErrUnknownGroup},
		{name: "unknown member", cmd: updateMember("web", "b", 5, 0), want: ErrUnknownMember},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLog(t)
			s := newRegistration("web", "a", "10.0.0.1:80", "one")
			s.Weight = 2
			was := l.must(register(s))
			r := l.apply(tc.cmd)
			if !errors.Is(r.Err, tc.want) {
				t.Fatalf("got %v, want %v", r.Err, tc.want)
			}
			if tc.want != nil {
				return
			}
			m := l.member("web", "a")
			if m.Weight != tc.weight || m.State != tc.state {
				t.Errorf("weight %d, state %s", m.Weight, m.State)
			}
			if (r.Revision == was.Revision) != tc.noRevision {
				t.Errorf("revision went from %d to %d", was.Revision, r.Revision)
			}
			if m.LeaseID != was.LeaseID || m.Epoch != was.Epoch {
				t.Error("an operator's change touched the lease")
			}
		})
	}
}

func TestSetGroup(t *testing.T) {
	const (
		created = 1 // index of the entry that makes group web with 128 virtual nodes
		moved   = 2 // index of the entry that registers a member in it
	)
	for _, tc := range []struct {
		name     string
		cmd      *fsmpb.Command
		want     error
		revision uint64 // of the group afterwards
		params   ring.Params
	}{
		{name: "new group", cmd: setGroup("db", 64, 1100, 0), revision: 3, params: ring.Params{VirtualNodes: 64, Bound: 1100}},
		{name: "other parameters", cmd: setGroup("web", 512, 0, 0), revision: 3, params: ring.Params{VirtualNodes: 512}},
		{name: "as it is", cmd: setGroup("web", 128, 0, 0), revision: moved, params: ring.Params{VirtualNodes: 128}},
		{name: "at the expected revision", cmd: setGroup("web", 512, 0, moved), revision: 3, params: ring.Params{VirtualNodes: 512}},
		{name: "at another revision", cmd: setGroup("web", 512, 0, created), want: ErrRevisionMismatch, revision: moved},
		{name: "expected but not there", cmd: setGroup("db", 512, 0, 1), want: ErrRevisionMismatch},
		{name: "as it is at another revision, a retry", cmd: setGroup("web", 128, 0, created), revision: moved, params: ring.Params{VirtualNodes: 128}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLog(t)
			l.must(setGroup("web", 128, 0, 0))
			l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
			r := l.apply(tc.cmd)
			if !errors.Is(r.Err, tc.want) {
				t.Fatalf("got %v, want %v", r.Err, tc.want)
			}
			if r.Revision != tc.revision {
				t.Errorf("revision %d, want %d", r.Revision, tc.revision)
			}
			g := l.m.State().Group(tc.cmd.GetSetGroup().Group)
			if tc.want == nil && (g.Params != tc.params || g.Revision != tc.revision) {
				t.Errorf("group has %+v at %d", g.Params, g.Revision)
			}
		})
	}
}

// A retry after a lost answer succeeds, although the group is no longer at the
// expected revision.
func TestSetGroupRetry(t *testing.T) {
	l := newLog(t)
	at := l.must(setGroup("web", 128, 0, 0)).Revision
	done := l.must(setGroup("web", 256, 0, at))
	retry := l.must(setGroup("web", 256, 0, at))
	if retry.Revision != done.Revision {
		t.Errorf("retry says revision %d, the first answer was %d", retry.Revision, done.Revision)
	}
}

func TestNodes(t *testing.T) {
	l := newLog(t)
	empty := l.m.State().Digest()
	n1 := &fsmpb.Node{Id: "n1", Bind: "n1:7370", Addr: "n1:9800", Version: "v1", Incarnation: "x", Nonvoter: true, Zone: "z"}
	l.must(setNode(n1))
	first := l.m.State().Digest()
	l.must(setNode(n1))
	if l.m.State().Digest() != first {
		t.Error("the same node twice is another state")
	}
	if n := l.m.State().Node("n1"); n.Bind != "n1:7370" || n.Addr != "n1:9800" || n.Version != "v1" || n.Incarnation != "x" || !n.Nonvoter || n.Zone != "z" {
		t.Errorf("%+v", n)
	}
	l.must(setNode(&fsmpb.Node{Id: "n0", Bind: "n0:1", Addr: "n0:2"}))
	var ids []string
	for n := range l.m.State().Nodes {
		ids = append(ids, n.ID)
	}
	if len(ids) != 2 || ids[0] != "n0" || ids[1] != "n1" {
		t.Errorf("nodes in order: %v", ids)
	}
	for _, id := range ids {
		if r := l.must(removeNode(id)); !r.Removed {
			t.Errorf("%s was not removed", id)
		}
	}
	if r := l.must(removeNode("n0")); r.Removed {
		t.Error("a node was removed twice")
	}
	if l.m.State().Digest() != empty {
		t.Error("without nodes the digest is another than before them")
	}
}

func TestTermStart(t *testing.T) {
	rec := &recorder{}
	l := newLog(t, rec)
	l.term = 3
	l.must(termStart("n1"))
	if s := l.m.State(); s.Term() != 3 || s.Leader() != "n1" {
		t.Errorf("term %d, leader %q", s.Term(), s.Leader())
	}
	l.term = 7
	l.must(termStart("n2"))
	if s := l.m.State(); s.Term() != 7 || s.Leader() != "n2" {
		t.Errorf("term %d, leader %q", s.Term(), s.Leader())
	}
	if len(rec.terms) != 2 || rec.terms[0] != 3 || rec.terms[1] != 7 {
		t.Errorf("observers heard of terms %v", rec.terms)
	}
}

// recorder records what observers are given.
type recorder struct {
	changes  []Change
	groups   []GroupChange
	terms    []uint64
	restored int
	check    func(*State)
}

func (r *recorder) Applied(u *Update) {
	r.changes = append(r.changes, u.Changes...)
	r.groups = append(r.groups, u.Groups...)
	r.terms = append(r.terms, u.Terms...)
	if r.check != nil {
		r.check(u.State)
	}
}

func (r *recorder) Restored(*State) { r.restored++ }

func TestObserversFollowTheState(t *testing.T) {
	rec := &recorder{}
	l := newLog(t, rec)
	rec.check = func(s *State) {
		if l.m.State() != s {
			t.Error("an observer is notified before the state is published")
		}
	}
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "two")))
	l.must(deregister("web", "a", ""))
	l.must(deregister("web", "a", ""))
	if len(rec.changes) != 3 {
		t.Fatalf("%d changes, want 3", len(rec.changes))
	}
	in, over, out := rec.changes[0], rec.changes[1], rec.changes[2]
	if in.Prev != nil || in.Next == nil || over.Prev != in.Next || out.Prev != over.Next || out.Next != nil {
		t.Errorf("changes do not chain: %+v", rec.changes)
	}
}
