package fsm

import (
	"fmt"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

const (
	// MaxFencedDeletion bounds the members that go with a group, each with a fence:
	// a tenth of the fences there are, because the oldest of those go for them.
	MaxFencedDeletion = MaxFences / 10
	// maxDeleted bounds them without fences: the entry takes about 2 µs for each.
	maxDeleted = 100_000
)

// deleteGroup removes a group, and with Force its members: each is fenced, as
// by a deregistration, so a process that goes on is told and does not make the
// group again while its fence is remembered.
//
// A group that is made again has the index of that entry as its revision, which
// is above all revisions that it had before.
func (b *batch) deleteGroup(c *fsmpb.DeleteGroup) Result {
	g := b.group(c.Group)
	if g == nil {
		return Result{Err: fmt.Errorf("%w: %q", ErrUnknownGroup, c.Group)}
	}
	if err := mayDelete(g, c); err != nil {
		return Result{Revision: g.Revision, Err: err}
	}
	members := g.txn.Values()
	for _, m := range members {
		if !c.NoFences {
			b.fence(g.Name, m.ID, m.Instance)
		}
		b.remove(g, m)
	}
	b.delete(g)
	return Result{Removed: true, Members: len(members)}
}

func mayDelete(g *openGroup, c *fsmpb.DeleteGroup) error {
	n, limit := g.txn.Len(), MaxFencedDeletion
	if c.NoFences {
		limit = maxDeleted
	}
	switch {
	case c.ExpectedRevision != 0 && g.Revision != c.ExpectedRevision:
		return revisionMismatch(g.Name, g.Revision, c.ExpectedRevision)
	case n > 0 && !c.Force:
		return fmt.Errorf("%w: %q has %d", ErrGroupNotEmpty, g.Name, n)
	case n > limit:
		return exhausted("members of a group that is deleted with them", limit)
	}
	return nil
}

func revisionMismatch(group string, at, expected uint64) error {
	return fmt.Errorf("%w: %q is at %d, not at %d", ErrRevisionMismatch, group, at, expected)
}
