package fsm

import (
	"errors"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

func rawEntry(t *testing.T, e *fsmpb.Entry) []byte {
	t.Helper()
	data, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sealed is an entry with a right checksum.
func sealed(t *testing.T, payload []byte) []byte {
	return rawEntry(t, &fsmpb.Entry{Version: envelopeVersion, Checksum: xxhash.Sum64(payload), Payload: payload})
}

func TestBadEntriesStopTheNode(t *testing.T) {
	good, err := Encode(termStart("n1"))
	if err != nil {
		t.Fatal(err)
	}
	var envelope fsmpb.Entry
	if err := proto.Unmarshal(good, &envelope); err != nil {
		t.Fatal(err)
	}
	with := func(edit func(*fsmpb.Entry)) []byte {
		e := proto.Clone(&envelope).(*fsmpb.Entry)
		edit(e)
		return rawEntry(t, e)
	}
	for _, tc := range []struct {
		name string
		data []byte
		want error
	}{
		{"no envelope", []byte("not an entry"), nil},
		{"envelope of version 0", with(func(e *fsmpb.Entry) { e.Version = 0 }), errVersion},
		{"envelope of version 1", with(func(e *fsmpb.Entry) { e.Version = 1 }), errVersion},
		{"envelope of a later version", with(func(e *fsmpb.Entry) { e.Version = envelopeVersion + 1 }), errVersion},
		{"wrong checksum", with(func(e *fsmpb.Entry) { e.Checksum++ }), errChecksum},
		{"no payload", with(func(e *fsmpb.Entry) { e.Payload = nil }), errChecksum},
		{"empty payload", sealed(t, nil), errCommand},
		{"unknown command", sealed(t, []byte{15<<3 | 2, 0}), errCommand},
		{"payload that is no command", sealed(t, []byte{0xff}), nil},
		{"cut short", good[:len(good)-1], nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLog(t)
			l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
			before := l.m.State()
			defer func() {
				var corrupt *CorruptEntryError
				err, _ := recover().(error)
				if !errors.As(err, &corrupt) {
					t.Fatalf("panicked with %v, want a CorruptEntryError", err)
				}
				if corrupt.Index != 42 || !strings.Contains(err.Error(), "42") {
					t.Errorf("does not name the entry: %v", err)
				}
				if tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
				if l.m.State() != before {
					t.Error("half a batch was published")
				}
			}()
			l.m.Apply([]Entry{{Index: 41, Term: 1, Data: good}, {Index: 42, Term: 1, Data: tc.data}})
			t.Fatal("the entry was applied")
		})
	}
}

// A flipped bit of an entry is an error, or changes nothing.
func TestFlippedBitsOfAnEntry(t *testing.T) {
	good, err := Encode(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	if err != nil {
		t.Fatal(err)
	}
	want, err := decode(good)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(good) {
		bad := append([]byte(nil), good...)
		bad[bit/8] ^= 1 << (bit % 8)
		if cmd, err := decode(bad); err == nil && !proto.Equal(cmd, want) {
			t.Errorf("bit %d: decoded as %v", bit, cmd)
		}
	}
}

// An entry without data moves the index.
func TestEntryWithoutData(t *testing.T) {
	l := newLog(t)
	r := l.m.Apply([]Entry{{Index: 7, Term: 3}})
	if r[0].Index != 7 || l.m.State().Index() != 7 || l.m.State().Digest() != 0 {
		t.Errorf("%+v, state at %d", r[0], l.m.State().Index())
	}
}

// A field of a later version is ignored, and the rest of the command takes effect.
func TestUnknownFieldOfACommand(t *testing.T) {
	l := newLog(t)
	l.must(setGroup("web", 64, 0, 0))
	cmd := deleteGroup("web", false, false, 0)
	cmd.GetDeleteGroup().ProtoReflect().SetUnknown([]byte{15 << 3, 1})
	if r := l.must(cmd); !r.Removed || l.m.State().Group("web") != nil {
		t.Errorf("%+v", r)
	}
}
