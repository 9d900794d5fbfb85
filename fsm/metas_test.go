package fsm

import (
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

func withMeta(id string, pairs ...string) *fsmpb.Command {
	s := newRegistration("web", id, "10.0.0.1:80", "one")
	for p := range slices.Chunk(pairs, 2) {
		s.Meta = append(s.Meta, &fsmpb.Pair{Key: p[0], Value: p[1]})
	}
	return register(s)
}

func TestEqualMetadataIsShared(t *testing.T) {
	l := newLog(t)
	large := strings.Repeat("x", metaShared)
	for id, meta := range map[string][]string{
		"a": {"version", "1", "zone", "a"}, "b": {"version", "1", "zone", "a"},
		"other value": {"version", "1", "zone", "b"}, "prefix": {"version", "1"}, "none": nil,
		"large": {"k", large}, "large too": {"k", large},
	} {
		l.must(withMeta(id, meta...))
	}
	check := func(when string, m *Machine) {
		t.Helper()
		meta := func(id string) []Pair { return m.State().Group("web").Member(id).Meta }
		if unsafe.SliceData(meta("a")) != unsafe.SliceData(meta("b")) {
			t.Errorf("%s: equal metadata is stored twice", when)
		}
		if unsafe.SliceData(meta("large")) == unsafe.SliceData(meta("large too")) {
			t.Errorf("%s: large metadata is kept for others", when)
		}
		if got, want := meta("other value"), []Pair{{"version", "1"}, {"zone", "b"}}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
		if got, want := meta("prefix"), []Pair{{"version", "1"}}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
		if got := meta("none"); got != nil {
			t.Errorf("%s: got %v, want none", when, got)
		}
	}
	check("registered", l.m)
	restored := New()
	if err := restored.Restore(newReader(snapshotBytes(t, l.m.State()))); err != nil {
		t.Fatal(err)
	}
	check("restored", restored)
	roundTrip(t, l.m)
}

// Members whose metadata has the same slot keep their own.
func TestMetadataOfOneSlot(t *testing.T) {
	l := newLog(t)
	const n = metaSlots + 1
	cmds := make([]*fsmpb.Command, n)
	for i := range cmds {
		cmds[i] = withMeta(itoa(i), "k", itoa(i))
	}
	l.batch(cmds...)
	for m := range l.m.State().Group("web").Members {
		if len(m.Meta) != 1 || m.Meta[0].Value != m.ID {
			t.Fatalf("%s has %v", m.ID, m.Meta)
		}
	}
	roundTrip(t, l.m)
}
