package fsm

import (
	"errors"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

func TestRegister(t *testing.T) {
	first := newRegistration("web", "a", "10.0.0.1:80", "one")
	other := func(edit func(*registration)) *registration {
		s := newRegistration("web", "a", "10.0.0.1:80", "one")
		edit(s)
		return s
	}
	for _, tc := range []struct {
		name   string
		before []*fsmpb.Command // after first
		reg    *registration
		want   error
		// The member afterwards, if want is nil.
		sameLease, sameRevision bool
		epoch                   uint64
		fenced                  string // an instance that may not come back
	}{
		{name: "same instance refreshes", reg: first, sameLease: true, sameRevision: true, epoch: 2},
		{
			name: "same instance at another address", sameLease: true, epoch: 2,
			reg: other(func(s *registration) { s.Addr = "10.0.0.2:80" }),
		},
		{
			name: "same instance with another weight", sameLease: true, epoch: 2,
			reg: other(func(s *registration) { s.Weight = 3 }),
		},
		{
			name: "same instance with other metadata", sameLease: true, epoch: 2,
			reg: other(func(s *registration) { s.Meta = []*fsmpb.Pair{{Key: "zone", Value: "b"}} }),
		},
		{
			name: "same instance with another ttl", sameLease: true, epoch: 2,
			reg: other(func(s *registration) { s.TtlMs = 20_000 }),
		},
		{
			name: "other instance at the same address takes over", epoch: 1, fenced: "one",
			reg: other(func(s *registration) { s.Instance = []byte("two") }),
		},
		{
			name: "other instance at another address conflicts", want: ErrConflict,
			reg: newRegistration("web", "a", "10.0.0.2:80", "two"),
		},
		{
			name: "other instance at another address asks to take over", epoch: 1, fenced: "one",
			reg: &registration{Group: "web", Id: "a", Addr: "10.0.0.2:80", Weight: 1, TtlMs: 10_000, Instance: []byte("two"), TakeOver: true},
		},
		{
			name: "instance that was deregistered", want: ErrFenced,
			before: []*fsmpb.Command{deregister("web", "a", "")},
			reg:    first,
		},
		{
			name: "instance that was taken over", want: ErrFenced,
			before: []*fsmpb.Command{register(newRegistration("web", "a", "10.0.0.1:80", "two"))},
			reg:    first,
		},
		{
			name: "fenced instance that asks to take over", want: ErrFenced,
			before: []*fsmpb.Command{register(newRegistration("web", "a", "10.0.0.1:80", "two"))},
			reg:    &registration{Group: "web", Id: "a", Addr: "10.0.0.1:80", Weight: 1, TtlMs: 10_000, Instance: []byte("one"), TakeOver: true},
		},
		{
			name: "fenced for this id, free for another", epoch: 1,
			before: []*fsmpb.Command{deregister("web", "a", "one")},
			reg:    newRegistration("web", "b", "10.0.0.1:80", "one"),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLog(t)
			was := l.must(register(first))
			for _, cmd := range tc.before {
				l.must(cmd)
			}
			held, digest := l.member("web", "a"), l.m.State().Digest()
			revision := l.m.State().Group("web").Revision

			r := l.apply(register(tc.reg))
			if tc.want != nil {
				if !errors.Is(r.Err, tc.want) {
					t.Fatalf("got %v, want %v", r.Err, tc.want)
				}
				if l.m.State().Digest() != digest || l.member("web", "a") != held {
					t.Error("a refused registration changed the state")
				}
				return
			}
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			m := l.member("web", tc.reg.Id)
			if (m.LeaseID == was.LeaseID) != tc.sameLease || !tc.sameLease && m.LeaseID != l.index {
				t.Errorf("lease is %d after entry %d, was %d", m.LeaseID, l.index, was.LeaseID)
			}
			if m.Epoch != tc.epoch {
				t.Errorf("epoch is %d, want %d", m.Epoch, tc.epoch)
			}
			if same := r.Revision == revision; same != tc.sameRevision {
				t.Errorf("revision went from %d to %d", revision, r.Revision)
			}
			if got := l.m.State().Group("web").Revision; got != r.Revision {
				t.Errorf("group is at %d, the answer says %d", got, r.Revision)
			}
			if r.LeaseID != m.LeaseID || r.Epoch != m.Epoch || r.Instance != m.Instance || r.TTL != m.TTL {
				t.Errorf("answer %+v does not describe member %+v", r, m)
			}
			if tc.fenced != "" && !l.m.State().fences.has("web", "a", tc.fenced) {
				t.Errorf("instance %q lost the id and is not fenced", tc.fenced)
			}
			if tc.sameRevision && m.ModifiedIndex != held.ModifiedIndex {
				t.Error("a refresh without a change moved ModifiedIndex")
			}
		})
	}
}

func TestRegisterKeepsEveryField(t *testing.T) {
	l := newLog(t)
	s := newRegistration("web", "a", "[::1]:80", "one")
	s.Weight, s.TtlMs = 7, 1500
	s.Meta = []*fsmpb.Pair{{Key: "a", Value: "1"}, {Key: "b", Value: ""}}
	l.must(register(s))
	m := l.member("web", "a")
	if m.Addr != "[::1]:80" || m.Weight != 7 || m.TTL != 1500*time.Millisecond || m.State != ring.Active ||
		m.RegisteredMS != 1_700_000_000_000 || len(m.Meta) != 2 || m.Meta[1] != (Pair{Key: "b"}) {
		t.Errorf("%+v", m)
	}
	if g := l.m.State().Group("web"); g.Params != ring.DefaultParams() || g.Len() != 1 {
		t.Errorf("group %+v", g)
	}
}

// A member keeps its creation index through takeovers, and an operator's state
// through refreshes, but not through a takeover by another process.
func TestRegisterHistoryOfAMember(t *testing.T) {
	l := newLog(t)
	created := l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one"))).Index
	l.must(updateMember("web", "a", 0, uint32(ring.Draining)+1))
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	if m := l.member("web", "a"); m.State != ring.Draining || m.CreatedIndex != created {
		t.Errorf("after a refresh: %+v", m)
	}
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "two")))
	if m := l.member("web", "a"); m.State != ring.Active || m.CreatedIndex != created {
		t.Errorf("after a takeover: %+v", m)
	}
}
