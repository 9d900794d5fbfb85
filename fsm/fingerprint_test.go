package fsm

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// scratchFingerprint computes a group's fingerprint from its members alone, with
// a byte layout of its own.
func scratchFingerprint(g *Group) uint64 {
	var sum uint64
	var count uint32
	for m := range g.Members {
		if m.State == ring.Draining {
			continue
		}
		var buf bytes.Buffer
		buf.WriteByte(byte(len(m.ID)))
		buf.WriteString(m.ID)
		_ = binary.Write(&buf, binary.LittleEndian, m.Weight*uint32(g.Params.VirtualNodes)) // a Buffer's Write never fails
		sum += xxhash.Sum64(buf.Bytes())
		count++
	}
	var buf bytes.Buffer
	_ = binary.Write(&buf, binary.LittleEndian, struct {
		Version, VirtualNodes, Bound, Members uint32
		Sum                                   uint64
	}{1, uint32(g.Params.VirtualNodes), uint32(g.Params.Bound), count, sum})
	return xxhash.Sum64(buf.Bytes())
}

// checkFingerprints compares the fingerprints with those of the members.
func checkFingerprints(tb testing.TB, s *State) {
	tb.Helper()
	for g := range s.Groups {
		if got, want := g.Fingerprint(), scratchFingerprint(g); got != want {
			tb.Fatalf("entry %d: group %q has fingerprint %016x, its members give %016x", s.Index(), g.Name, got, want)
		}
	}
}

// builtDigest is the digest of the ring that a group's members lead to.
func builtDigest(tb testing.TB, g *Group) uint64 {
	tb.Helper()
	var members []ring.Member
	for m := range g.Members {
		members = append(members, ring.Member{ID: m.ID, Weight: int(m.Weight), State: m.State})
	}
	r, err := ring.New(g.Params, members)
	if err != nil {
		tb.Fatal(err)
	}
	if r.Fingerprint() != g.Fingerprint() {
		tb.Fatalf("group %q at %d: ring has fingerprint %016x, the group %016x", g.Name, g.Revision, r.Fingerprint(), g.Fingerprint())
	}
	return r.Digest()
}

// At every revision, through snapshots and restores, the fingerprint is that of
// the members, and equal fingerprints come with equal points.
func TestFingerprintsFollowTheMembers(t *testing.T) {
	h := newHistory(t, seed.Rand(t))
	points := make(map[uint64]uint64) // fingerprint → digest of the points
	revisions := make(map[string]uint64)
	for range historyLength() {
		if h.r.IntN(20) == 0 {
			if err := h.log.m.Restore(newReader(snapshotBytes(t, h.log.m.State()))); err != nil {
				t.Fatal(err)
			}
		}
		h.step()
		s := h.log.m.State()
		checkFingerprints(t, s)
		for g := range s.Groups {
			if revisions[g.Name] == g.Revision {
				continue
			}
			revisions[g.Name] = g.Revision
			digest := builtDigest(t, g)
			if was, ok := points[g.Fingerprint()]; ok && was != digest {
				t.Fatalf("entry %d: fingerprint %016x of rings %016x and %016x", s.Index(), g.Fingerprint(), was, digest)
			}
			points[g.Fingerprint()] = digest
		}
	}
	t.Logf("%d fingerprints", len(points))
}

// Weight, virtual nodes, bound and members change the fingerprint; refreshes,
// addresses and holds do not.
func TestWhatAFingerprintSees(t *testing.T) {
	l := newLog(t)
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	at := func() uint64 { return l.m.State().Group("web").Fingerprint() }
	seen := map[uint64]string{at(): "one member"}
	same := func(what string, want uint64) {
		t.Helper()
		if got := at(); got != want {
			t.Errorf("%s changed the fingerprint", what)
		}
	}
	first := at()
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	same("a refresh", first)
	moved := newRegistration("web", "a", "10.0.0.2:80", "two")
	moved.TakeOver = true
	l.must(register(moved))
	same("an address", first)
	l.must(hold("web", "a", 1000, ""))
	same("a hold", first)
	l.must(updateMember("web", "a", 0, uint32(ring.Active)+1))
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"weight", func() { l.must(updateMember("web", "a", 2, 0)) }},
		{"virtual nodes", func() { l.must(setGroup("web", 128, 0, 0)) }},
		{"a bound", func() { l.must(setGroup("web", 128, 1250, 0)) }},
		{"another bound", func() { l.must(setGroup("web", 128, 1300, 0)) }},
		{"a second member", func() { l.must(register(newRegistration("web", "b", "10.0.0.2:80", "one"))) }},
		{"draining", func() { l.must(updateMember("web", "a", 0, uint32(ring.Draining)+1)) }},
	} {
		step.do()
		if was, ok := seen[at()]; ok {
			t.Errorf("%s and %s have one fingerprint", step.what, was)
		}
		seen[at()] = step.what
	}
}

// folded is the sum of the changes of groups: ids to modified indexes, by group.
type folded struct {
	t      *testing.T
	groups map[string]map[string]uint64
	last   map[string]*Group
}

func (f *folded) Applied(u *Update) {
	for _, c := range u.Groups {
		if c.Next == nil {
			f.deleted(u, c.Prev)
			continue
		}
		name := c.Next.Name
		if f.last[name] == nil {
			f.groups[name] = make(map[string]uint64)
		}
		was := f.last[name]
		if c.Next != u.State.Group(name) || (was == nil) != (c.Prev == nil) || was != nil && was.Revision != c.Prev.Revision {
			f.t.Errorf("changes of %q do not chain at %d", name, u.State.Index())
		}
		if c.Prev != nil && c.Prev.Revision >= c.Next.Revision {
			f.t.Errorf("a change of %q from %d to %d", name, c.Prev.Revision, c.Next.Revision)
		}
		for _, id := range c.Removed {
			if _, ok := f.groups[name][id]; !ok {
				f.t.Errorf("%q at %d: %q removed, which was not there", name, c.Next.Revision, id)
			}
			delete(f.groups[name], id)
		}
		for _, m := range c.Put {
			f.groups[name][m.ID] = m.ModifiedIndex
		}
		if !slices.IsSorted(c.Removed) || !slices.IsSortedFunc(c.Put, func(a, b *Member) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) }) {
			f.t.Errorf("%q at %d: not in order", name, c.Next.Revision)
		}
		f.last[name] = c.Next
	}
	for g := range u.State.Groups {
		if f.last[g.Name] == nil || f.last[g.Name].Revision != g.Revision {
			f.t.Errorf("no change led to %q at %d", g.Name, g.Revision)
		}
	}
	if len(f.last) != u.State.GroupCount() {
		f.t.Errorf("at %d there are %d groups, the changes give %d", u.State.Index(), u.State.GroupCount(), len(f.last))
	}
}

func (f *folded) deleted(u *Update, g *Group) {
	if was := f.last[g.Name]; u.State.Group(g.Name) != nil || was == nil || was.Revision != g.Revision {
		f.t.Errorf("deletion of %q does not chain at %d", g.Name, u.State.Index())
	}
	delete(f.last, g.Name)
	delete(f.groups, g.Name)
}

func (f *folded) Restored(*State) {}

// However entries come in batches, the changes of groups add up to the state.
func TestChangesOfGroupsAddUp(t *testing.T) {
	r := seed.Rand(t)
	h := newHistory(t, r)
	for range historyLength() {
		h.step()
	}
	f := &folded{t, make(map[string]map[string]uint64), make(map[string]*Group)}
	m := New(f)
	for left := h.done; len(left) > 0; {
		n := min(len(left), 1+r.IntN(10))
		m.Apply(left[:n])
		left = left[n:]
		for g := range m.State().Groups {
			want := make(map[string]uint64)
			for m := range g.Members {
				want[m.ID] = m.ModifiedIndex
			}
			if !maps.Equal(f.groups[g.Name], want) {
				t.Fatalf("%q at %d adds up to %v, want %v", g.Name, g.Revision, f.groups[g.Name], want)
			}
		}
	}
}
