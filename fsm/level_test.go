package fsm

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

func featureLevel(level uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_SetFeatureLevel{SetFeatureLevel: &fsmpb.SetFeatureLevel{Level: level}}}
}

// Each command, and each field of one, is of 0.1.0, whose fields the file lists, or has
// a feature level. The parts of a command with a level need none.
func TestEveryFieldHasALevel(t *testing.T) {
	list, err := os.ReadFile("testdata/level1-fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	first := make(map[string]bool)
	for name := range strings.FieldsSeq(string(list)) {
		first[name] = true
	}
	found := make(map[protoreflect.FullName]bool)
	var walk func(protoreflect.MessageDescriptor)
	walk = func(d protoreflect.MessageDescriptor) {
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			name := fd.FullName()
			if found[name] {
				continue
			}
			found[name] = true
			short := strings.TrimPrefix(string(name), "registry.fsm.v1.")
			later := max(refusedBelow[name], droppedBelow[name])
			if first[short] == (later > 0) {
				t.Errorf("%s: in 0.1.0 %v, and of level %d in Levels", short, first[short], later)
			}
			if fd.Message() != nil && refusedBelow[name] == 0 {
				walk(fd.Message())
			}
		}
	}
	walk((&fsmpb.Command{}).ProtoReflect().Descriptor())
	for i, l := range Levels {
		if l.Level != uint32(i+1) || l.Level > NewestLevel {
			t.Errorf("level %d is at place %d, and the newest is %d", l.Level, i+1, NewestLevel)
		}
		for _, name := range append(l.Refused, l.Dropped...) {
			if !found[protoreflect.FullName("registry.fsm.v1."+name)] {
				t.Errorf("level %d has %s, and no command does", l.Level, name)
			}
		}
	}
}

func TestCommandsBelowTheirLevel(t *testing.T) {
	l := newLog(t)
	l.must(termStart("n1"))
	restore := func(op any) *fsmpb.Command {
		switch op := op.(type) {
		case *fsmpb.RestoreBegin:
			return &fsmpb.Command{Op: &fsmpb.Command_RestoreBegin{RestoreBegin: op}}
		case *fsmpb.RestorePart:
			return &fsmpb.Command{Op: &fsmpb.Command_RestorePart{RestorePart: op}}
		}
		return &fsmpb.Command{Op: &fsmpb.Command_RestoreEnd{RestoreEnd: op.(*fsmpb.RestoreEnd)}}
	}
	refused := map[string]*fsmpb.Command{
		"create token":       rootToken(),
		"rotate token":       rotateToken("a", "b", 0),
		"revoke token":       revokeToken("a"),
		"restore begin":      restore(&fsmpb.RestoreBegin{}),
		"restore part":       restore(&fsmpb.RestorePart{}),
		"restore end":        restore(&fsmpb.RestoreEnd{}),
		"token needs":        as("a", false, register(newRegistration("g", "a", "h:1", "i"))),
		" token needs":       as("a", false, deregister("g", "a", "i")),
		"feature level: tok": as("a", false, updateMember("g", "a", 1, 0)),
	}
	for text, cmd := range refused {
		err := l.m.State().AtLevel(cmd)
		if low, ok := errors.AsType[*LevelError](err); !ok || low.Needed != 2 || low.Has != 1 || !errors.Is(err, ErrFeatureLevel) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	dropped := as("", true, register(newRegistration("g", "a", "h:1", "i")))
	want := register(newRegistration("g", "a", "h:1", "i"))
	if err := l.m.State().AtLevel(dropped); err != nil || !proto.Equal(dropped, want) {
		t.Errorf("%v: %v", dropped, err)
	}
	zoned := setNode(&fsmpb.Node{Id: "n1", Zone: "z"})
	if err := l.m.State().AtLevel(zoned); err != nil || !proto.Equal(zoned, setNode(&fsmpb.Node{Id: "n1"})) {
		t.Errorf("%v: %v", zoned, err)
	}
	for field, level := range map[string]uint32{"Node.zone": 2, "Node.addr": 1, "Command.create_token": 2} {
		if got := LevelOf(field); got != level {
			t.Errorf("%s needs level %d, want %d", field, got, level)
		}
	}
	l.must(featureLevel(2))
	for text, cmd := range refused {
		if err := l.m.State().AtLevel(cmd); err != nil {
			t.Errorf("%s at level 2: %v", text, err)
		}
	}
	kept := as("", true, register(newRegistration("g", "a", "h:1", "i")))
	if err := l.m.State().AtLevel(kept); err != nil || !kept.GetRegister().AnyOwner {
		t.Errorf("at level 2: %v: %v", kept, err)
	}
	zoned = setNode(&fsmpb.Node{Id: "n1", Zone: "z"})
	if err := l.m.State().AtLevel(zoned); err != nil || zoned.GetSetNode().Node.Zone != "z" {
		t.Errorf("at level 2: %v: %v", zoned, err)
	}
}

// A state at level 1 has the digest and the snapshot of 0.1.0. The level goes up only.
func TestLevelInDigestAndSnapshot(t *testing.T) {
	header := func(s *State) *fsmpb.SnapshotHeader {
		var rec fsmpb.SnapshotRecord
		if err := protodelim.UnmarshalFrom(bytes.NewReader(snapshotBytes(t, s)), &rec); err != nil {
			t.Fatal(err)
		}
		return rec.GetHeader()
	}
	l := newLog(t)
	l.must(register(newRegistration("g", "a", "h:1", "i")))
	at1 := l.m.State()
	l.must(featureLevel(1))
	if s := l.m.State(); s.FeatureLevel() != 1 || s.Digest() != at1.Digest() || header(s).FeatureLevel != 0 {
		t.Errorf("level %d, digest %x, before %x", s.FeatureLevel(), s.Digest(), at1.Digest())
	}
	l.must(featureLevel(2))
	l.must(featureLevel(1))
	s := l.m.State()
	if s.FeatureLevel() != 2 || s.Digest() == at1.Digest() || s.Digest() != at1.WithLevel(2).Digest() || s.WithLevel(1).FeatureLevel() != 2 {
		t.Errorf("level %d, digest %x, before %x", s.FeatureLevel(), s.Digest(), at1.Digest())
	}
	back, err := ReadSnapshot(bytes.NewReader(snapshotBytes(t, s)))
	if err != nil || back.FeatureLevel() != 2 || back.Digest() != s.Digest() || back.Verify(t.Context()) != nil {
		t.Errorf("read back: %v", err)
	}
}

// Only the first entry of a log gives a cluster its level.
func TestLevelOfANewCluster(t *testing.T) {
	born := func(level uint32) *fsmpb.Command {
		c := termStart("n1")
		c.GetTermStart().FeatureLevel = level
		return c
	}
	l := newLog(t)
	l.must(born(2))
	if got := l.m.State().FeatureLevel(); got != 2 {
		t.Errorf("a new cluster has level %d", got)
	}
	old := newLog(t)
	old.must(termStart("n1"))
	old.must(born(2))
	if got := old.m.State().FeatureLevel(); got != 1 {
		t.Errorf("an older cluster has level %d", got)
	}
}

// What is of a later level is refused with a text that says so.
func TestLevelOfALaterVersion(t *testing.T) {
	l := newLog(t)
	func() {
		defer func() {
			bad, ok := recover().(*CorruptEntryError)
			if !ok || !errors.Is(bad, ErrFeatureLevel) || !strings.Contains(bad.Error(), "at level 3, and this version supports up to 2") {
				t.Errorf("%v", bad)
			}
		}()
		l.apply(featureLevel(NewestLevel + 1))
	}()
	later := newLog(t).m.State()
	s := *later
	s.setLevelForTest(NewestLevel + 1)
	if _, err := ReadSnapshot(bytes.NewReader(snapshotBytes(t, &s))); !errors.Is(err, ErrFeatureLevel) {
		t.Errorf("snapshot: %v", err)
	}
	if err := Validate(featureLevel(NewestLevel + 1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("before the log: %v", err)
	}
}

func (s *State) setLevelForTest(level uint32) {
	s.digest += levelDigest(level) - levelDigest(s.level)
	s.level = level
}

// A snapshot of a later level is not restored, whoever can read it.
func TestRestoreOfALaterLevel(t *testing.T) {
	from := newState().WithLevel(2)
	if err := newState().CheckRestore(from); !errors.Is(err, ErrFeatureLevel) {
		t.Errorf("%v", err)
	}
	if err := newState().WithLevel(2).CheckRestore(newState()); err != nil {
		t.Errorf("an earlier one: %v", err)
	}
}

// The bound of a deletion is that of 0.1.0 while its nodes may be in the cluster.
func TestDeletionAtLevel1(t *testing.T) {
	l := newLog(t)
	for i := range MaxFencedDeletion + 1 {
		l.must(register(newRegistration("web", "m"+itoa(i), "10.0.0.1:80", "i"+itoa(i))))
	}
	if r := l.apply(deleteGroup("web", true, false, 0)); r.Err != nil {
		t.Error(r.Err)
	}
}
