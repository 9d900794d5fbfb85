package fsm

import (
	"fmt"
	"slices"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

// register adds a member, or refreshes it:
//
//	the id is free                      a new member
//	same instance                       a refresh, idempotent
//	other instance, same address        the process was restarted: it takes over
//	other instance, held for a restart  the process returned: it takes over
//	other instance, other address       a conflict, unless take_over is set
//	an instance that lost this id       fenced
//
// A member that belongs to another token is neither refreshed nor taken, unless
// any_owner is set. One that is refreshed keeps its token, if it has one.
func (b *batch) register(c *fsmpb.Register, timeMS int64) Result {
	instance := string(c.Instance)
	if b.next.fences.has(c.Group, c.Id, instance) {
		return Result{Err: fmt.Errorf("%w: %q in group %q was deregistered, held or taken over by another process; start the service again to register anew", ErrFenced, c.Id, c.Group)}
	}
	g := b.group(c.Group)
	var old *Member
	if g != nil {
		old, _ = g.txn.Get(c.Id)
	}
	if old != nil && !old.mayChange(c.Token, c.AnyOwner) {
		return Result{Err: notOwner(c.Group, c.Id)}
	}
	if old != nil && old.Instance != instance && old.Addr != c.Addr && old.Hold == 0 && !c.TakeOver {
		return Result{Err: fmt.Errorf("%w: %q in group %q is at %s", ErrConflict, c.Id, c.Group, old.Addr)}
	}
	if err := b.roomFor(g, old, uint64(c.Weight)); err != nil {
		return Result{Err: err}
	}
	if g == nil {
		var err error
		if g, err = b.createGroup(c.Group); err != nil {
			return Result{Err: err}
		}
	}
	m := b.newMember(old, c, timeMS)
	if old != nil && old.Instance != instance {
		b.fence(c.Group, c.Id, old.Instance)
	}
	b.put(g, m)
	return Result{LeaseID: m.LeaseID, Epoch: m.Epoch, Instance: m.Instance, TTL: m.TTL, Revision: g.Revision}
}

// newMember returns the member after a registration.
func (b *batch) newMember(old *Member, c *fsmpb.Register, timeMS int64) *Member {
	m := &Member{
		ID:            c.Id,
		Addr:          c.Addr,
		Weight:        c.Weight,
		Meta:          b.metas.pairs(c.Meta),
		Instance:      string(c.Instance),
		Token:         string(c.Token),
		LeaseID:       b.index,
		Epoch:         1,
		TTL:           time.Duration(c.TtlMs) * time.Millisecond,
		CreatedIndex:  b.index,
		ModifiedIndex: b.index,
		RegisteredMS:  timeMS,
	}
	if c.StatePlusOne != 0 {
		m.State = ring.State(c.StatePlusOne - 1)
	}
	if old == nil {
		return m
	}
	m.CreatedIndex = old.CreatedIndex
	if old.Instance != m.Instance {
		return m
	}
	m.LeaseID, m.Epoch = old.LeaseID, old.Epoch+1
	if c.StatePlusOne == 0 {
		m.State, m.Hold = old.State, old.Hold
	}
	if old.Token != "" {
		m.Token = old.Token
	}
	m.RegisteredMS = old.RegisteredMS
	if visiblyEqual(old, m) {
		m.ModifiedIndex = old.ModifiedIndex
	}
	return m
}

// visiblyEqual reports whether readers see no difference.
func visiblyEqual(a, b *Member) bool {
	return a.Addr == b.Addr && a.Weight == b.Weight && a.State == b.State &&
		a.TTL == b.TTL && a.Hold == b.Hold && slices.Equal(a.Meta, b.Meta)
}

// MaxTotalMembers bounds the members of all groups together. One takes about a
// kilobyte on every node.
const MaxTotalMembers = 1 << 21

// roomFor checks the bounds on members, and on a ring's points, before a member
// of that weight replaces old. Draining members count: they may become active.
func (b *batch) roomFor(g *openGroup, old *Member, weight uint64) error {
	k, before, members := uint64(ring.DefaultVirtualNodes), uint64(0), 0
	if g != nil {
		k, before, members = uint64(g.Params.VirtualNodes), g.Points(), g.txn.Len()
		weight += g.weight
	}
	switch {
	case old != nil:
		weight -= uint64(old.Weight)
	case members >= ring.MaxMembers:
		return exhausted("members of a group", ring.MaxMembers)
	case b.next.members >= MaxTotalMembers:
		return exhausted("members of all groups", MaxTotalMembers)
	}
	return pointsFit(before, weight*k)
}

// CheckRoom refuses a command that would exceed a bound of this state before it is
// proposed, so that it takes no space in the log. Apply checks again.
func (s *State) CheckRoom(cmd *fsmpb.Command) error {
	var name, id string
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Register:
		name, id = op.Register.Group, op.Register.Id
	case *fsmpb.Command_SetGroup:
		name = op.SetGroup.Group
	case *fsmpb.Command_CreateToken:
		if s.tokens.byID.Len() >= MaxTokens && s.Token(string(op.CreateToken.Token.GetId())) == nil {
			return exhausted("tokens", MaxTokens)
		}
		return nil
	default:
		return nil
	}
	g := s.Group(name)
	if g == nil && s.GroupCount() >= MaxGroups {
		return exhausted("groups", MaxGroups)
	}
	if id != "" && s.members >= MaxTotalMembers && (g == nil || g.Member(id) == nil) {
		return exhausted("members of all groups", MaxTotalMembers)
	}
	return nil
}

// pointsFit checks the bound on points before a ring's number changes.
func pointsFit(before, after uint64) error {
	if after > before && after > ring.MaxPoints { // a ring above the bound may shrink
		return exhausted("points of a ring (virtual nodes × weights)", ring.MaxPoints)
	}
	return nil
}

// mayChange reports whether a command with this token may change the member.
func (m *Member) mayChange(token []byte, anyOwner bool) bool {
	return m.Token == "" || anyOwner || m.Token == string(token)
}

func notOwner(group, id string) error {
	return fmt.Errorf("%w: %q in group %q", ErrNotOwner, id, group)
}

func exhausted(what string, limit int) error {
	return fmt.Errorf("%w: at most %d %s", ErrExhausted, limit, what)
}

// deregister removes a member and fences its instance, even if there is no such
// member: a delayed registration may still arrive. With keep_held, a held member
// stays.
func (b *batch) deregister(c *fsmpb.Deregister) Result {
	g := b.group(c.Group)
	instance := string(c.Instance)
	if g == nil {
		if instance != "" {
			b.fence(c.Group, c.Id, instance)
		}
		return Result{}
	}
	m, _ := g.txn.Get(c.Id)
	if m != nil && !m.mayChange(c.Token, c.AnyOwner) {
		return Result{Revision: g.Revision, Err: notOwner(c.Group, c.Id)}
	}
	if m != nil && instance == "" {
		instance = m.Instance
	}
	if m != nil && c.KeepHeld && m.Hold != 0 && m.Instance == instance {
		return Result{Revision: g.Revision}
	}
	if instance != "" {
		b.fence(c.Group, c.Id, instance)
	}
	if m == nil || m.Instance != instance {
		return Result{Revision: g.Revision}
	}
	b.remove(g, m)
	return Result{Removed: true, Revision: g.Revision}
}

// expire removes the members whose leases ran out. It has no effect if the entry
// has another term, because a deposed leader decided it, nor on a lease that has
// another epoch, because it was refreshed since.
func (b *batch) expire(c *fsmpb.Expire) Result {
	if c.Term != b.term {
		return Result{}
	}
	removed := false
	for _, l := range c.Leases {
		g := b.group(l.Group)
		if g == nil {
			continue
		}
		m, _ := g.txn.Get(l.Id)
		if m == nil || m.LeaseID != l.LeaseId || m.Epoch != l.Epoch {
			continue
		}
		b.remove(g, m)
		removed = true
	}
	return Result{Removed: removed}
}
