package fsm

import (
	"errors"
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
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
	r := random(t)
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	const extra = 100
	var entries []Entry
	for i := range MaxFences + extra {
		entries = append(entries, l.entry(deregister("web", "a", "i"+itoa(i))))
	}
	// A fence that is set again is as young as that.
	entries = append(entries, l.entry(deregister("web", "a", "i"+itoa(extra))), l.entry(deregister("web", "a", "new")))
	l.m.Apply(entries)

	f := l.m.State().fences
	if f.len() != MaxFences || f.byAge.Len() != MaxFences {
		t.Fatalf("%d fences by seat, %d by age, want %d", f.len(), f.byAge.Len(), MaxFences)
	}
	for i, want := range map[int]bool{0: false, extra - 1: false, extra: true, extra + 1: false, extra + 2: true, MaxFences + extra - 1: true} {
		if got := f.has("web", "a", "i"+itoa(i)); got != want {
			t.Errorf("fence %d is there: %t, want %t", i, got, want)
		}
	}
	other := newLog(t)
	other.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	split(r, other.m, entries)
	sameState(t, "in other batches", l.m, other.m)
	if got := scratchDigest(l.m.State()); got != l.m.State().Digest() {
		t.Errorf("digest %016x, recomputed %016x", l.m.State().Digest(), got)
	}
	roundTrip(t, l.m)
}

// A ring of exactly MaxPoints is allowed, one more weight is not. The members
// are drained in the same batch: they count, but no ring of that size is built.
func TestPointsAreBounded(t *testing.T) {
	const most = ring.MaxPoints / ring.DefaultVirtualNodes // sum of weights
	l := newLog(t)
	var cmds []*fsmpb.Command
	for i, left := 0, most; left > 0; i++ {
		s := newSeat("web", "m"+itoa(i), "10.0.0.1:80", "one")
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
		"one more member":      register(newSeat("web", "more", "10.0.0.1:80", "one")),
		"more weight":          updateMember("web", "m"+itoa(len(cmds)/2-1), 100, 0),
		"twice the points":     setGroup("web", 2*ring.DefaultVirtualNodes, 0, 0),
		"a heavier refresh":    register(&seat{Group: "web", Id: "m" + itoa(len(cmds)/2-1), Addr: "10.0.0.1:80", Weight: 100, TtlMs: 1000, Instance: []byte("one")}),
		"a heavier take-over ": register(&seat{Group: "web", Id: "m" + itoa(len(cmds)/2-1), Addr: "10.0.0.1:80", Weight: 100, TtlMs: 1000, Instance: []byte("two")}),
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
	s := newSeat("web", "more", "10.0.0.1:80", "one")
	s.Weight = 2
	l.must(register(s))
	roundTrip(t, l.m)
}

func TestGroupsAreBounded(t *testing.T) {
	l := newLog(t)
	// All but one group, without their rings.
	b := newBatch(l.m.State(), l.m.rings)
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
		register(newSeat("last", "a", "10.0.0.1:80", "one")),
		register(newSeat("more", "a", "10.0.0.1:80", "one")),
		setGroup("more", 64, 0, 0),
		register(newSeat("g7", "a", "10.0.0.1:80", "one")))
	for i, want := range []error{nil, ErrExhausted, ErrExhausted, nil} {
		if !errors.Is(r[i].Err, want) {
			t.Errorf("command %d: got %v, want %v", i, r[i].Err, want)
		}
	}
	if n := l.m.State().GroupCount(); n != MaxGroups || l.m.State().Group("more") != nil {
		t.Errorf("%d groups", n)
	}
	if _, err := ReadSnapshot(newReader(snapshotBytes(t, l.m.State()))); err != nil {
		t.Errorf("a full state does not restore: %v", err)
	}
}
