package fsm

import (
	"bytes"
	"flag"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

var update = flag.Bool("update", false, "write golden files instead of comparing with them")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log drives a machine as raft does: one index after the other.
type log struct {
	tb    testing.TB
	m     *Machine
	index uint64
	term  uint64
}

func newLog(tb testing.TB, observers ...Observer) *log {
	return &log{tb: tb, m: New(observers...), term: 1}
}

func (l *log) entry(cmd *fsmpb.Command) Entry {
	l.tb.Helper()
	data, err := Encode(cmd)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.index++
	return Entry{Index: l.index, Term: l.term, Data: data}
}

func (l *log) apply(cmd *fsmpb.Command) Result {
	l.tb.Helper()
	return l.m.Apply([]Entry{l.entry(cmd)})[0]
}

// must applies a command that has to work.
func (l *log) must(cmd *fsmpb.Command) Result {
	l.tb.Helper()
	r := l.apply(cmd)
	if r.Err != nil {
		l.tb.Fatalf("%v: %v", cmd, r.Err)
	}
	return r
}

func (l *log) member(group, id string) *Member {
	if g := l.m.State().Group(group); g != nil {
		return g.Member(id)
	}
	return nil
}

// registration is one under construction.
type registration = fsmpb.Register

func newRegistration(group, id, addr, instance string) *registration {
	return &registration{Group: group, Id: id, Addr: addr, Weight: 1, TtlMs: 10_000, Instance: []byte(instance)}
}

func register(s *registration) *fsmpb.Command {
	return &fsmpb.Command{TimeMs: 1_700_000_000_000, Op: &fsmpb.Command_Register{Register: s}}
}

func deregister(group, id, instance string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Deregister{Deregister: &fsmpb.Deregister{
		Group: group, Id: id, Instance: []byte(instance),
	}}}
}

func expire(term uint64, leases ...*fsmpb.ExpiredLease) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Expire{Expire: &fsmpb.Expire{Term: term, Leases: leases}}}
}

func leaseOf(group string, m *Member) *fsmpb.ExpiredLease {
	return &fsmpb.ExpiredLease{Group: group, Id: m.ID, LeaseId: m.LeaseID, Epoch: m.Epoch}
}

func termStart(node string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_TermStart{TermStart: &fsmpb.TermStart{Node: node}}}
}

func setNode(n *fsmpb.Node) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_SetNode{SetNode: &fsmpb.SetNode{Node: n}}}
}

func removeNode(id string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_RemoveNode{RemoveNode: &fsmpb.RemoveNode{Id: id}}}
}

func setGroup(group string, nodes, bound uint32, expected uint64) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{
		Group: group, VirtualNodes: nodes, Bound: bound, ExpectedRevision: expected,
	}}}
}

func deleteGroup(group string, force, noFences bool, expected uint64) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_DeleteGroup{DeleteGroup: &fsmpb.DeleteGroup{
		Group: group, Force: force, NoFences: noFences, ExpectedRevision: expected,
	}}}
}

func updateMember(group, id string, weight, statePlusOne uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{
		Group: group, Id: id, Weight: weight, StatePlusOne: statePlusOne,
	}}}
}

// hold holds a member: on an operator's word, or by its own instance.
func hold(group, id string, ms int64, instance string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{
		Group: group, Id: id, StatePlusOne: uint32(ring.Held) + 1, HoldMs: ms, Instance: []byte(instance),
	}}}
}

// newTestToken is a token with an id, a name and a hash that begin with the name.
func newTestToken(name string, grants ...*fsmpb.Grant) *fsmpb.Token {
	return &fsmpb.Token{Id: tokenID(name), Name: name, Hash: tokenHash(name), Grants: grants}
}

func grant(rights Right, prefix string) *fsmpb.Grant {
	return &fsmpb.Grant{Rights: uint32(rights), Prefix: prefix}
}

func tokenID(name string) []byte   { return append([]byte(name), make([]byte, 8)...)[:8] }
func tokenHash(name string) []byte { return append([]byte(name), make([]byte, 32)...)[:32] }

func createToken(t *fsmpb.Token) *fsmpb.Command {
	return &fsmpb.Command{TimeMs: 1_700_000_000_000, Op: &fsmpb.Command_CreateToken{CreateToken: &fsmpb.CreateToken{Token: t}}}
}

func firstToken(t *fsmpb.Token) *fsmpb.Command {
	c := createToken(t)
	c.GetCreateToken().First = true
	return c
}

// rootToken turns tokens on.
func rootToken() *fsmpb.Command { return firstToken(newTestToken("root", grant(allRights, ""))) }

func rotateToken(name, hash string, previousExpiresMS int64) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_RotateToken{RotateToken: &fsmpb.RotateToken{
		Id: tokenID(name), Hash: tokenHash(hash), PreviousExpiresMs: previousExpiresMS,
	}}}
}

func revokeToken(name string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_RevokeToken{RevokeToken: &fsmpb.RevokeToken{Id: tokenID(name)}}}
}

// as sets the caller of a command: the name of its token, or none, and whether it may
// change members of other tokens.
func as(token string, anyOwner bool, cmd *fsmpb.Command) *fsmpb.Command {
	var id []byte
	if token != "" {
		id = tokenID(token)
	}
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Register:
		op.Register.Token, op.Register.AnyOwner = id, anyOwner
	case *fsmpb.Command_Deregister:
		op.Deregister.Token, op.Deregister.AnyOwner = id, anyOwner
	case *fsmpb.Command_UpdateMember:
		op.UpdateMember.Token, op.UpdateMember.AnyOwner = id, anyOwner
	}
	return cmd
}

func snapshotBytes(tb testing.TB, s *State) []byte {
	tb.Helper()
	var buf bytes.Buffer
	if err := s.WriteSnapshot(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func itoa(n int) string { return strconv.Itoa(n) }
