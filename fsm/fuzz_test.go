package fsm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

func FuzzDecode(f *testing.F) {
	for _, cmd := range []*fsmpb.Command{termStart("n1"), register(newRegistration("web", "a", "a:1", "one")), deregister("web", "a", "")} {
		data, err := Encode(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		cmd, err := decode(data)
		if err != nil {
			return
		}
		again, err := Encode(cmd)
		if err != nil {
			t.Fatalf("decoded and cannot be encoded: %v", err)
		}
		if back, err := decode(again); err != nil || !proto.Equal(back, cmd) {
			t.Fatalf("%v became %v, %v", cmd, back, err)
		}
	})
}

func FuzzReadSnapshot(f *testing.F) {
	f.Add(snapshotBytes(f, newState()))
	f.Add(snapshotBytes(f, smallState(f).m.State()))
	f.Add(snapshotBytes(f, tokenState(f).m.State()))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadSnapshot(newReader(data))
		if err != nil {
			if !errors.Is(err, ErrCorruptSnapshot) {
				t.Fatalf("%v is no ErrCorruptSnapshot", err)
			}
			return
		}
		if got := scratchDigest(s); got != s.Digest() {
			t.Fatalf("digest %016x, recomputed %016x", s.Digest(), got)
		}
		checkFingerprints(t, s)
		back, err := ReadSnapshot(newReader(snapshotBytes(t, s)))
		if err != nil || back.Digest() != s.Digest() {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}

// expected are the answers that a command may give.
var expected = []error{ErrUnknownGroup, ErrUnknownMember, ErrConflict, ErrFenced, ErrRevisionMismatch, ErrGroupNotEmpty, ErrExhausted, ErrInvalid,
	ErrNotOwner, ErrTokensOff, ErrUnknownToken, ErrLastAdmin}

// applyValid applies a command that Validate lets through: it does not panic,
// answers with a known error or none, and leaves a state that survives a
// snapshot.
func applyValid(t *testing.T, l *log, cmd *fsmpb.Command) {
	t.Helper()
	if Validate(cmd) != nil {
		return
	}
	r := l.apply(cmd)
	known := r.Err == nil
	for _, err := range expected {
		known = known || errors.Is(r.Err, err)
	}
	if !known {
		t.Fatalf("%v answers %v", cmd, r.Err)
	}
	s := l.m.State()
	if got := scratchDigest(s); got != s.Digest() {
		t.Fatalf("%v: digest %016x, recomputed %016x", cmd, s.Digest(), got)
	}
	checkFingerprints(t, s)
	back, err := ReadSnapshot(newReader(snapshotBytes(t, s)))
	if err != nil || back.Digest() != s.Digest() {
		t.Fatalf("%v: the snapshot does not restore: %v", cmd, err)
	}
}

// FuzzValidCommand takes any bytes as a command.
func FuzzValidCommand(f *testing.F) {
	for _, cmd := range []*fsmpb.Command{
		termStart("n1"), register(newRegistration("web", "a", "a:1", "one")), deregister("web", "a", "x"),
		setGroup("web", 64, 1100, 3), updateMember("web", "a", 1000, 3), removeNode("n1"),
		setNode(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2"}), deleteGroup("web", true, false, 2),
		expire(1, &fsmpb.ExpiredLease{Group: "web", Id: "a", LeaseId: 2, Epoch: 1}),
		rootToken(), createToken(newTestToken("t", grant(Register, "we"))), rotateToken("root", "new", 5), revokeToken("root"),
		as("root", false, deregister("web", "a", "one")),
	} {
		data, err := proto.Marshal(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var cmd fsmpb.Command
		if proto.Unmarshal(data, &cmd) != nil {
			return
		}
		l := newLog(t)
		l.must(termStart("n1"))
		l.must(as("root", false, register(newRegistration("web", "a", "a:1", "one"))))
		applyValid(t, l, &cmd)
		if cmd.GetCreateToken() == nil {
			l.must(rootToken())
		}
		applyValid(t, l, &cmd) // and as a retry
	})
}

// The same with commands that are often valid: fields are drawn from the
// limits and from just outside of them.
func TestWhatValidateLetsThrough(t *testing.T) {
	r := seed.Rand(t)
	l := newLog(t)
	name := func() string { return pick(r, "web", "a", "ж", "", "a/b", "x y", "\xff", "n1") }
	addr := func() string { return pick(r, "a:1", "[::1]:80", "b:65535", "b:0", "", "\xff:1") }
	for range historyLength() {
		var cmd *fsmpb.Command
		switch r.IntN(9) {
		case 0, 1:
			s := &registration{
				Group: name(), Id: name(), Addr: addr(), TakeOver: r.IntN(2) == 0,
				Weight:   pick[uint32](r, 0, 1, 200, 1001, 1<<31),
				TtlMs:    pick[int64](r, 999, 1000, 86_400_000, 86_400_001, 18_446_744_085_179, -1, 1<<62),
				Instance: pick(r, nil, []byte("x"), []byte{0, 0xff}, make([]byte, 64), make([]byte, 65)),
			}
			for range r.IntN(3) {
				s.Meta = append(s.Meta, &fsmpb.Pair{Key: name(), Value: name()})
			}
			cmd = register(s)
			cmd.TimeMs = pick[int64](r, 0, -1, 1<<62)
		case 2:
			cmd = deregister(name(), name(), name())
		case 3:
			cmd = setGroup(name(), pick[uint32](r, 0, 63, 64, 100, 128), pick[uint32](r, 0, 1009, 1010, 10_000, 10_001), uint64(r.IntN(3)))
		case 4:
			cmd = updateMember(name(), name(), pick[uint32](r, 0, 1, 200, 1001), uint32(r.IntN(6)))
		case 5:
			cmd = setNode(&fsmpb.Node{Id: name(), Bind: addr(), Addr: addr(), Version: name(), Incarnation: name(), Zone: name()})
		case 6:
			cmd = deleteGroup(name(), r.IntN(2) == 0, r.IntN(2) == 0, uint64(r.IntN(3)))
		case 7:
			cmd = expire(1, &fsmpb.ExpiredLease{Group: "web", Id: "a", LeaseId: uint64(r.IntN(100)), Epoch: 1})
		case 8:
			cmd = randomTokenCommand(r, name)
		}
		cmd = as(pick(r, "", "a", "b"), r.IntN(2) == 0, cmd)
		applyValid(t, l, cmd)
	}
}

func randomTokenCommand(r *rand.Rand, name func() string) *fsmpb.Command {
	size := func(n int) []byte { return bytes.Repeat([]byte{byte(r.IntN(3))}, n-r.IntN(8)/7) }
	ms := func() int64 { return pick[int64](r, 0, 1, -1, 1<<62) }
	switch r.IntN(4) {
	case 0:
		return &fsmpb.Command{Op: &fsmpb.Command_RotateToken{RotateToken: &fsmpb.RotateToken{Id: size(8), Hash: size(32), PreviousExpiresMs: ms()}}}
	case 1:
		return &fsmpb.Command{Op: &fsmpb.Command_RevokeToken{RevokeToken: &fsmpb.RevokeToken{Id: size(8)}}}
	}
	t := &fsmpb.Token{Id: size(8), Name: name(), Hash: size(32), ExpiresMs: ms()}
	for range r.IntN(3) {
		t.Grants = append(t.Grants, grant(Right(r.IntN(18)), pick(r, "", name())))
	}
	return &fsmpb.Command{Op: &fsmpb.Command_CreateToken{CreateToken: &fsmpb.CreateToken{Token: t, First: r.IntN(2) == 0}}}
}
