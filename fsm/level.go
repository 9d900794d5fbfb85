package fsm

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// A feature level is a number in the state that says what the log may have. A version
// supports all levels up to its newest, so nodes of several versions apply the same log
// to the same state while the cluster is at a level that all of them support. It starts
// at the newest level that its founders support, and is raised by an operator.
//
// A state at level 1 has the digest and the snapshot of 0.1.0, which knows no levels.

// NewestLevel is the newest feature level that this version supports.
const NewestLevel = 2

// Level is what a feature level adds.
type Level struct {
	Level uint32
	// Since is the first release that supports the level.
	Since string
	// Refused are the commands, and the fields of earlier commands, that are refused
	// before the log below the level: full names without the package.
	Refused []string
	// Dropped are fields that are left out below the level. They mean nothing there.
	Dropped []string
}

// Levels has all levels in order. A level that was released never changes.
var Levels = []Level{
	{Level: 1, Since: "0.1.0"},
	{
		Level: 2, Since: "0.2.0",
		Refused: []string{
			"Command.create_token", "Command.rotate_token", "Command.revoke_token",
			"Command.restore_begin", "Command.restore_part", "Command.restore_end",
			"Command.set_feature_level", "TermStart.feature_level",
			"Register.token", "Deregister.token", "UpdateMember.token",
		},
		// Without tokens, every member may be changed by everybody. A node without a zone
		// counts as a zone of its own, as every node did.
		Dropped: []string{"Register.any_owner", "Deregister.any_owner", "UpdateMember.any_owner", "Node.zone"},
		// And the bound of DeleteGroup: see checkDelete.
	},
}

// names of the fields that need a level above 1.
var (
	refusedBelow = byField(func(l Level) []string { return l.Refused })
	droppedBelow = byField(func(l Level) []string { return l.Dropped })
)

func byField(of func(Level) []string) map[protoreflect.FullName]uint32 {
	out := make(map[protoreflect.FullName]uint32)
	for _, l := range Levels {
		for _, name := range of(l) {
			out["registry.fsm.v1."+protoreflect.FullName(name)] = l.Level
		}
	}
	return out
}

// LevelOf is the level that a field of a command needs; its name is as in [Level].
func LevelOf(field string) uint32 {
	name := "registry.fsm.v1." + protoreflect.FullName(field)
	return max(1, refusedBelow[name], droppedBelow[name])
}

// FeatureLevel is the feature level of the cluster, 1 or more.
func (s *State) FeatureLevel() uint32 { return max(s.level, 1) }

// AtLevel prepares a command for the log of this state: it drops the fields that mean
// nothing at the state's level, and returns a [LevelError] if the command has anything
// that a newer level adds.
func (s *State) AtLevel(cmd *fsmpb.Command) error {
	if s.FeatureLevel() >= NewestLevel {
		return nil
	}
	return s.atLevel(cmd.ProtoReflect())
}

func (s *State) atLevel(m protoreflect.Message) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if droppedBelow[fd.FullName()] > s.FeatureLevel() {
			m.Clear(fd)
			return true
		}
		if need := refusedBelow[fd.FullName()]; need > s.FeatureLevel() {
			err = &LevelError{Needed: need, Has: s.FeatureLevel(), What: strings.ReplaceAll(string(fd.Name()), "_", " ")}
			return false
		}
		if fd.Message() != nil && !fd.IsList() && !fd.IsMap() {
			err = s.atLevel(v.Message())
		}
		return err == nil
	})
	return err
}

// LevelError says that a feature level does not allow something. It is an
// [ErrFeatureLevel].
type LevelError struct {
	// Needed is the level that allows it, and Has the cluster's.
	Needed, Has uint32
	// What is not allowed.
	What string
	// Advice says what an operator can do, and which nodes hold the level back.
	Advice string
}

func (e *LevelError) Error() string {
	text := fmt.Sprintf("%v: %s needs level %d, the cluster is at %d", ErrFeatureLevel, e.What, e.Needed, e.Has)
	if e.Advice != "" {
		text += ": " + e.Advice
	}
	return text
}

// Is makes errors.Is(err, ErrFeatureLevel) true.
func (e *LevelError) Is(target error) bool { return target == ErrFeatureLevel }

// ValidateLevel checks a level that a cluster may be raised to.
func ValidateLevel(level uint32) error {
	if level < 1 || level > NewestLevel {
		return &FieldError{Field: "level", Limit: fmt.Sprintf("1 to %d, the newest level that this version supports", NewestLevel), Got: fmt.Sprint(level)}
	}
	return nil
}

// raiseLevel never lowers the level. It panics at one that this version does not
// support: what follows in the log may be anything.
func (b *batch) raiseLevel(level uint32) {
	if level > NewestLevel {
		panic(&CorruptEntryError{Index: b.index, Cause: tooNew(level)})
	}
	if level > b.next.FeatureLevel() {
		b.setLevel(level)
	}
}

func (b *batch) setLevel(level uint32) {
	b.next.digest += levelDigest(level) - levelDigest(b.next.level)
	b.next.level = level
}

// tooNew is the error of data that is of a newer level than this version supports.
func tooNew(level uint32) error {
	return fmt.Errorf("%w: the cluster is at level %d, and this version supports up to %d: start the node with a newer version", ErrFeatureLevel, level, NewestLevel)
}

// WithLevel is the state at that level or, if that is newer, its own. A new cluster may
// begin with it.
func (s *State) WithLevel(level uint32) *State {
	out := *s
	if level > s.FeatureLevel() {
		out.digest += levelDigest(level) - levelDigest(s.level)
		out.level = level
	}
	return &out
}
