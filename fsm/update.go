package fsm

import (
	"fmt"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

// updateMember changes a member's weight or state, for an operator or for the
// member's own instance. A weight lasts until the process registers again, a state
// until another instance registers the id.
func (b *batch) updateMember(c *fsmpb.UpdateMember) Result {
	g := b.group(c.Group)
	if g == nil {
		return Result{Err: fmt.Errorf("%w: %q", ErrUnknownGroup, c.Group)}
	}
	old, _ := g.txn.Get(c.Id)
	if err := checkUpdate(old, c); err != nil {
		return Result{Revision: g.Revision, Err: err}
	}
	m := *old
	if c.Weight != 0 {
		m.Weight = c.Weight
	}
	if c.StatePlusOne != 0 {
		m.State = ring.State(c.StatePlusOne - 1)
		m.Hold = time.Duration(c.HoldMs) * time.Millisecond
	}
	if err := b.roomFor(g, old, uint64(m.Weight)); err != nil {
		return Result{Err: err}
	}
	b.changeMember(g, old, &m, c)
	return Result{Revision: g.Revision}
}

// checkUpdate checks that the member exists and belongs to the token, and to the
// instance, if one is given.
func checkUpdate(m *Member, c *fsmpb.UpdateMember) error {
	switch {
	case m == nil:
		return fmt.Errorf("%w: %q in group %q", ErrUnknownMember, c.Id, c.Group)
	case !m.mayChange(c.Token, c.AnyOwner):
		return notOwner(c.Group, c.Id)
	case len(c.Instance) > 0 && m.Instance != string(c.Instance):
		return fmt.Errorf("%w: another process registered %q in group %q; start the service again to register anew", ErrFenced, c.Id, c.Group)
	case len(c.Instance) > 0 && c.HoldMs != 0 && m.State == ring.Draining:
		// A hold would give it back the keys that it handed over.
		return &FieldError{Field: "state", Limit: "not draining when its own process asks for a hold", Got: m.State.String()}
	}
	return nil
}

// changeMember stores the changed member. The start and the end of a hold restart
// the lease with a new epoch, which voids an expiry that was decided before. An
// instance that asks for its own hold gives up its registration and is fenced: a
// late retry of that registration must not end the hold.
func (b *batch) changeMember(g *openGroup, old, m *Member, c *fsmpb.UpdateMember) {
	restarted := c.HoldMs != 0 || old.Hold != m.Hold
	if restarted {
		m.Epoch++
	}
	if c.HoldMs != 0 && len(c.Instance) > 0 {
		b.fence(c.Group, c.Id, m.Instance)
	}
	if !visiblyEqual(old, m) {
		m.ModifiedIndex = b.index
	} else if !restarted {
		return
	}
	b.put(g, m)
}
