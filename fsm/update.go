package fsm

import (
	"fmt"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

// updateMember changes weight or state, on an operator's word or that of the
// instance that has the seat. A weight holds until the process registers again,
// a state until another process takes the seat.
func (b *batch) updateMember(c *fsmpb.UpdateMember) Result {
	g := b.group(c.Group)
	if g == nil {
		return Result{Err: fmt.Errorf("%w: %q", ErrUnknownGroup, c.Group)}
	}
	old, _ := g.txn.Get(c.Id)
	if err := mayUpdate(old, c); err != nil {
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

// mayUpdate checks that there is such a member, and that it is the instance's
// that asks.
func mayUpdate(m *Member, c *fsmpb.UpdateMember) error {
	switch {
	case m == nil:
		return fmt.Errorf("%w: %q in group %q", ErrUnknownMember, c.Id, c.Group)
	case len(c.Instance) > 0 && m.Instance != string(c.Instance):
		return fmt.Errorf("%w: %q in group %q is another's", ErrFenced, c.Id, c.Group)
	case len(c.Instance) > 0 && c.HoldMs != 0 && m.State == ring.Draining:
		// Held, it would get the keys back that it gave away.
		return &FieldError{Field: "state", Limit: "not draining, for a hold by its own process", Got: m.State.String()}
	}
	return nil
}

// changeMember puts the changed member. A hold, and the end of one, starts the
// lease over, so it has a new epoch: an expiry that was decided before is void.
// The instance that asks for its own hold gives the seat up and is fenced:
// a retry of its registration must not end the hold that nobody renews.
func (b *batch) changeMember(g *openGroup, old, m *Member, c *fsmpb.UpdateMember) {
	restarted := c.HoldMs != 0 || old.Hold != m.Hold
	if restarted {
		m.Epoch++
	}
	if c.HoldMs != 0 && len(c.Instance) > 0 {
		b.fence(c.Group, c.Id, m.Instance)
	}
	if !sameToReaders(old, m) {
		m.ModifiedIndex = b.index
	} else if !restarted {
		return
	}
	b.put(g, m)
}
