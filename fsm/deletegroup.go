package fsm

import (
	"fmt"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

const (
	// MaxFencedDeletion bounds the members that are deleted with a group and fenced:
	// a tenth of all fences, because the new ones displace the oldest.
	MaxFencedDeletion = MaxFences / 10
	// maxFencedDeletion1 is the bound at feature level 1.
	maxFencedDeletion1 = MaxFences
	// maxDeleted bounds them without fences: applying takes about 2 µs for each.
	maxDeleted = 100_000
)

// deleteGroup removes a group, and with Force its members. Each is fenced, as by a
// deregistration, so a process that goes on learns of it and does not create the
// group again while its fence is kept.
//
// A group that is created again has that entry's index as its revision, which is
// above all its earlier ones.
func (b *batch) deleteGroup(c *fsmpb.DeleteGroup) Result {
	g := b.group(c.Group)
	if g == nil {
		return Result{Err: fmt.Errorf("%w: %q", ErrUnknownGroup, c.Group)}
	}
	if err := checkDelete(g, c, b.next.FeatureLevel()); err != nil {
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

func checkDelete(g *openGroup, c *fsmpb.DeleteGroup, level uint32) error {
	n, limit := g.txn.Len(), MaxFencedDeletion
	if level < 2 {
		limit = maxFencedDeletion1
	}
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
