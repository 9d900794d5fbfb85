package fsm

import (
	"errors"
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/store/storetest/seed"
)

func (l *log) batch(cmds ...*fsmpb.Command) []Result {
	entries := make([]Entry, len(cmds))
	for i, cmd := range cmds {
		entries[i] = l.entry(cmd)
	}
	return l.m.Apply(entries)
}

// The oldest fences go first, whatever the batches, also across a restore.
func TestFencesAreBounded(t *testing.T) {
	r := seed.Rand(t)
	l := newLog(t)
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	const extra = 100
	var entries []Entry
	for i := range MaxFences + extra {
		entries = append(entries, l.entry(deregister("web", "a", "i"+itoa(i))))
	}
	// A fence that is set again is as young as that.
	entries = append(entries, l.entry(deregister("web", "a", "i"+itoa(extra))), l.entry(deregister("web", "a", "new")))
	l.m.Apply(entries)

	f := l.m.State().fences
	if f.byInstance.Len() != MaxFences || f.byAge.Len() != MaxFences {
		t.Fatalf("%d fences by instance, %d by age, want %d", f.byInstance.Len(), f.byAge.Len(), MaxFences)
	}
	for i, want := range map[int]bool{0: false, extra - 1: false, extra: true, extra + 1: false, extra + 2: true, MaxFences + extra - 1: true} {
		if got := f.has("web", "a", "i"+itoa(i)); got != want {
			t.Errorf("fence %d is there: %t, want %t", i, got, want)
		}
	}
	other := newLog(t)
	other.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	split(r, other.m, entries)
	sameState(t, "in other batches", l.m, other.m)
	if got := scratchDigest(l.m.State()); got != l.m.State().Digest() {
		t.Errorf("digest %016x, recomputed %016x", l.m.State().Digest(), got)
	}
	roundTrip(t, l.m)
}

// A ring of exactly MaxPoints is allowed, one more weight is not. Draining
// members count: they may come back.
func TestPointsAreBounded(t *testing.T) {
	const most = ring.MaxPoints / ring.DefaultVirtualNodes // sum of weights
	l := newLog(t)
	var cmds []*fsmpb.Command
	for i, left := 0, most; left > 0; i++ {
		s := newRegistration("web", "m"+itoa(i), "10.0.0.1:80", "one")
		s.Weight = uint32(min(left, ring.MaxWeight))
		left -= int(s.Weight)
		cmds = append(cmds, register(s), updateMember("web", s.Id, 0, uint32(ring.Draining)+1))
	}
	for _, r := range l.batch(cmds...) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	digest := l.m.State().Digest()
	for name, cmd := range map[string]*fsmpb.Command{
		"one more member":      register(newRegistration("web", "more", "10.0.0.1:80", "one")),
		"more weight":          updateMember("web", "m"+itoa(len(cmds)/2-1), 100, 0),
		"twice the points":     setGroup("web", 2*ring.DefaultVirtualNodes, 0, 0),
		"a heavier refresh":    register(&registration{Group: "web", Id: "m" + itoa(len(cmds)/2-1), Addr: "10.0.0.1:80", Weight: 100, TtlMs: 1000, Instance: []byte("one")}),
		"a heavier take-over ": register(&registration{Group: "web", Id: "m" + itoa(len(cmds)/2-1), Addr: "10.0.0.1:80", Weight: 100, TtlMs: 1000, Instance: []byte("two")}),
	} {
		if r := l.apply(cmd); !errors.Is(r.Err, ErrExhausted) {
			t.Errorf("%s: got %v, want ErrExhausted", name, r.Err)
		}
	}
	if l.m.State().Digest() != digest {
		t.Error("what was refused changed the state")
	}
	l.must(deregister("web", "m0", ""))
	l.must(updateMember("web", "m1", ring.MaxWeight, 0))
	s := newRegistration("web", "more", "10.0.0.1:80", "one")
	s.Weight = 2
	l.must(register(s))
	roundTrip(t, l.m)
}

func TestGroupsAreBounded(t *testing.T) {
	l := newLog(t)
	// All but one group.
	b := newBatch(l.m.State(), new(metas))
	for i := range MaxGroups - 1 {
		l.index++
		b.begin(Entry{Index: l.index, Term: 1})
		if r := b.setGroup(setGroup("g"+itoa(i), 64, 0, 0).GetSetGroup()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	full, _ := b.finish()
	l.m.state.Store(full)
	// In one batch: the last group that fits, and one too many of either kind.
	r := l.batch(
		register(newRegistration("last", "a", "10.0.0.1:80", "one")),
		register(newRegistration("more", "a", "10.0.0.1:80", "one")),
		setGroup("more", 64, 0, 0),
		register(newRegistration("g7", "a", "10.0.0.1:80", "one")))
	for i, want := range []error{nil, ErrExhausted, ErrExhausted, nil} {
		if !errors.Is(r[i].Err, want) {
			t.Errorf("command %d: got %v, want %v", i, r[i].Err, want)
		}
	}
	for name, tt := range map[string]struct {
		cmd  *fsmpb.Command
		want error
	}{
		"a new group":          {setGroup("more", 64, 0, 0), ErrExhausted},
		"a member's new group": {register(newRegistration("more", "a", "10.0.0.1:80", "one")), ErrExhausted},
		"another member":       {register(newRegistration("last", "b", "10.0.0.1:80", "one")), nil},
		"other parameters":     {setGroup("last", 64, 0, 0), nil},
	} {
		if err := l.m.State().CheckRoom(tt.cmd); !errors.Is(err, tt.want) {
			t.Errorf("%s: CheckRoom says %v, want %v", name, err, tt.want)
		}
	}
	if n := l.m.State().GroupCount(); n != MaxGroups || l.m.State().Group("more") != nil {
		t.Errorf("%d groups", n)
	}
	if _, err := ReadSnapshot(newReader(snapshotBytes(t, l.m.State()))); err != nil {
		t.Errorf("a full state does not restore: %v", err)
	}
}

// The members of all groups are bounded, by CheckRoom before the log and by Apply.
// Existing members stay.
func TestMembersOfAllGroupsAreBounded(t *testing.T) {
	l := newLog(t)
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	almost := *l.m.State()
	almost.members = MaxTotalMembers - 1
	l.m.state.Store(&almost)
	last := register(newRegistration("web", "last", "10.0.0.1:80", "one"))
	if err := l.m.State().CheckRoom(last); err != nil {
		t.Errorf("the last member: %v", err)
	}
	r := l.batch(last, register(newRegistration("web", "more", "10.0.0.1:80", "one")))
	if r[0].Err != nil || !errors.Is(r[1].Err, ErrExhausted) {
		t.Errorf("the last member: %v, one more: %v", r[0].Err, r[1].Err)
	}
	for name, tt := range map[string]struct {
		cmd  *fsmpb.Command
		want error
	}{
		"a new member":       {register(newRegistration("web", "more", "10.0.0.1:80", "one")), ErrExhausted},
		"in a new group":     {register(newRegistration("new", "a", "10.0.0.1:80", "one")), ErrExhausted},
		"a refresh":          {register(newRegistration("web", "a", "10.0.0.1:80", "one")), nil},
		"a group of its own": {setGroup("empty", 64, 0, 0), nil},
		"a weight":           {updateMember("web", "a", 2, 0), nil},
		"another's place":    {register(newRegistration("web", "last", "10.0.0.1:80", "two")), nil},
		"a member that goes": {deregister("web", "a", ""), nil},
	} {
		s := l.m.State()
		if err := s.CheckRoom(tt.cmd); !errors.Is(err, tt.want) {
			t.Errorf("%s: CheckRoom says %v, want %v", name, err, tt.want)
		}
		if err := l.apply(tt.cmd).Err; !errors.Is(err, tt.want) {
			t.Errorf("%s: Apply says %v, want %v", name, err, tt.want)
		}
		l.m.state.Store(s)
	}
}

func TestMemberCountFollowsTheGroups(t *testing.T) {
	h := newHistory(t, seed.Rand(t))
	for range historyLength() {
		h.step()
		s, sum := h.log.m.State(), 0
		for g := range s.Groups {
			sum += g.Len()
		}
		if s.MemberCount() != sum {
			t.Fatalf("entry %d: counts %d members, the groups have %d", s.Index(), s.MemberCount(), sum)
		}
	}
	s := h.log.m.State()
	restored, err := ReadSnapshot(newReader(snapshotBytes(t, s)))
	if err != nil || restored.MemberCount() != s.MemberCount() {
		t.Errorf("restored: %d members, want %d, %v", restored.MemberCount(), s.MemberCount(), err)
	}
}
