package fsm

import (
	"errors"
	"testing"
)

// A group is deleted when it is empty, and with its members when it is forced.
func TestDeleteGroup(t *testing.T) {
	for _, tt := range []struct {
		name    string
		cmd     func(revision uint64) (group string, force, noFences bool, expected uint64)
		want    error
		members int
	}{
		{"empty", func(uint64) (string, bool, bool, uint64) { return "empty", false, false, 0 }, nil, 0},
		{"empty, by force", func(uint64) (string, bool, bool, uint64) { return "empty", true, false, 0 }, nil, 0},
		{"unknown", func(uint64) (string, bool, bool, uint64) { return "db", true, false, 0 }, ErrUnknownGroup, 0},
		{"with members", func(uint64) (string, bool, bool, uint64) { return "web", false, false, 0 }, ErrGroupNotEmpty, 0},
		{"with members, by force", func(uint64) (string, bool, bool, uint64) { return "web", true, false, 0 }, nil, 2},
		{"at its revision", func(r uint64) (string, bool, bool, uint64) { return "web", true, false, r }, nil, 2},
		{"at another", func(r uint64) (string, bool, bool, uint64) { return "web", true, false, r - 1 }, ErrRevisionMismatch, 0},
		{"without fences", func(uint64) (string, bool, bool, uint64) { return "web", true, true, 0 }, nil, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLog(t)
			l.must(setGroup("empty", 64, 0, 0))
			l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
			l.must(register(newRegistration("web", "b", "10.0.0.2:80", "two")))
			before := l.m.State()
			group, force, noFences, expected := tt.cmd(before.Group("web").Revision)
			r := l.apply(deleteGroup(group, force, noFences, expected))
			s := l.m.State()
			if !errors.Is(r.Err, tt.want) || r.Members != tt.members || r.Removed != (tt.want == nil) {
				t.Errorf("answers %+v", r)
			}
			if gone := s.Group(group) == nil && before.Group(group) != nil; gone != (tt.want == nil) {
				t.Errorf("deleted: %t", gone)
			}
			if want := before.MemberCount() - tt.members; s.MemberCount() != want {
				t.Errorf("%d members, want %d", s.MemberCount(), want)
			}
			back, err := l.apply(register(newRegistration("web", "a", "10.0.0.1:80", "one"))), error(nil)
			if tt.members > 0 && !noFences {
				err = ErrFenced
			}
			if !errors.Is(back.Err, err) {
				t.Errorf("a process that goes on is answered %v, want %v", back.Err, err)
			}
		})
	}
}

// A group that is created again is empty and has a higher revision, in a later
// batch and in the same.
func TestGroupMadeAgain(t *testing.T) {
	for _, together := range []bool{false, true} {
		l := newLog(t)
		l.must(setGroup("web", 128, 1250, 0))
		l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
		l.must(register(newRegistration("web", "b", "10.0.0.2:80", "two")))
		was := l.m.State().Group("web")
		entries := []Entry{
			l.entry(deleteGroup("web", true, false, 0)),
			l.entry(register(newRegistration("web", "b", "10.0.0.2:80", "three"))),
		}
		if together {
			l.m.Apply(entries)
		} else {
			l.m.Apply(entries[:1])
			l.m.Apply(entries[1:])
		}
		g := l.m.State().Group("web")
		if g == nil || g.Len() != 1 || g.Params.VirtualNodes != 256 || g.Params.Bound != 0 || g.Revision != was.Revision+2 {
			t.Fatalf("together %t: %+v", together, g)
		}
		if m := g.Member("b"); m.Instance != "three" || m.CreatedIndex != g.Revision {
			t.Errorf("together %t: %+v", together, m)
		}
		if got := scratchDigest(l.m.State()); got != l.m.State().Digest() {
			t.Errorf("together %t: digest %016x, recomputed %016x", together, l.m.State().Digest(), got)
		}
		checkFingerprints(t, l.m.State())
	}
}

// A group that was created and deleted in one batch was never visible.
func TestGroupOfOneBatch(t *testing.T) {
	l := newLog(t)
	changes := 0
	l.m = New(observerFunc(func(u *Update) { changes += len(u.Groups) }))
	l.m.Apply([]Entry{
		l.entry(register(newRegistration("web", "a", "10.0.0.1:80", "one"))),
		l.entry(deleteGroup("web", true, false, 0)),
		l.entry(deleteGroup("web", true, false, 0)),
	})
	s := l.m.State()
	if changes != 0 || s.GroupCount() != 0 || s.MemberCount() != 0 || scratchDigest(s) != s.Digest() {
		t.Errorf("%d changes, %d groups, %d members", changes, s.GroupCount(), s.MemberCount())
	}
}

// observerFunc observes what was applied.
type observerFunc func(*Update)

func (f observerFunc) Applied(u *Update) { f(u) }
func (f observerFunc) Restored(*State)   {}

// Deleted groups make room for others, in the same batch as well.
func TestDeletionMakesRoomForGroups(t *testing.T) {
	l := newLog(t)
	var entries []Entry
	for i := range MaxGroups {
		entries = append(entries, l.entry(setGroup("g"+itoa(i), 64, 0, 0)))
	}
	l.m.Apply(entries)
	if r := l.apply(setGroup("more", 64, 0, 0)); !errors.Is(r.Err, ErrExhausted) {
		t.Fatalf("one group too many: %v", r.Err)
	}
	r := l.m.Apply([]Entry{
		l.entry(deleteGroup("g1", false, false, 0)), l.entry(setGroup("more", 64, 0, 0)), l.entry(setGroup("and more", 64, 0, 0)),
	})
	if r[0].Err != nil || r[1].Err != nil || !errors.Is(r[2].Err, ErrExhausted) || l.m.State().GroupCount() != MaxGroups {
		t.Errorf("answers %v, %v, %v with %d groups", r[0].Err, r[1].Err, r[2].Err, l.m.State().GroupCount())
	}
}

// A group with more members than the state remembers fences is not deleted with
// fences: the first of its processes could come back.
func TestDeletionOfALargeGroup(t *testing.T) {
	l := newLog(t)
	l.must(featureLevel(2))
	var entries []Entry
	for i := range MaxFencedDeletion + 1 {
		entries = append(entries, l.entry(register(newRegistration("web", "m"+itoa(i), "10.0.0.1:80", "i"+itoa(i)))))
	}
	l.m.Apply(entries)
	if r := l.apply(deleteGroup("web", true, false, 0)); !errors.Is(r.Err, ErrExhausted) {
		t.Errorf("with fences: %v", r.Err)
	}
	l.must(deregister("web", "m0", ""))
	if r := l.must(deleteGroup("web", true, false, 0)); r.Members != MaxFencedDeletion {
		t.Errorf("%d members", r.Members)
	}
	for _, i := range []int{1, MaxFencedDeletion} {
		if r := l.apply(register(newRegistration("web", "m"+itoa(i), "10.0.0.1:80", "i"+itoa(i)))); !errors.Is(r.Err, ErrFenced) {
			t.Errorf("member %d comes back: %v", i, r.Err)
		}
	}
}

// A check in the batch of a deletion counts what is left.
func TestMarkAfterADeletion(t *testing.T) {
	one, other := newLog(t), newLog(t)
	entries := []Entry{
		one.entry(register(newRegistration("web", "a", "10.0.0.1:80", "one"))), one.entry(deleteGroup("web", true, false, 0)), one.entry(checkEntry()),
	}
	one.m.Apply(entries)
	for _, e := range entries {
		other.m.Apply([]Entry{e})
	}
	if one.m.LastMark() != other.m.LastMark() || one.m.LastMark().Digest != scratchDigest(one.m.State()) {
		t.Errorf("marks %+v and %+v", one.m.LastMark(), other.m.LastMark())
	}
}
