package watch

import (
	"sync"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/ring"
)

// Change is the change of a group from one revision to a later one, by entries that
// were applied together. It is immutable, and refers to no state of the machine.
type Change struct {
	Group string
	// From is the revision before, 0 for a new group, and FromFingerprint the
	// group's fingerprint there.
	From, FromFingerprint uint64
	Revision, Fingerprint uint64
	Index                 uint64 // applied, with the group at Revision
	Params                ring.Params
	// Removed is to be applied before Put: a member that was removed and added again
	// is in both. Both are ordered by id.
	Removed []string
	Put     []*fsm.Member

	encode  sync.Once
	encoded any
}

// newChange makes the change of a group that was not deleted.
func newChange(g *fsm.GroupChange, index uint64) *Change {
	c := &Change{
		Group: g.Next.Name, Revision: g.Next.Revision, Fingerprint: g.Next.Fingerprint(), Index: index,
		Params: g.Next.Params, Removed: g.Removed, Put: g.Put,
	}
	if g.Prev != nil {
		c.From, c.FromFingerprint = g.Prev.Revision, g.Prev.Fingerprint()
	}
	return c
}

// Encoded returns the result of encode, which is called once for a change.
func (c *Change) Encoded(encode func(*Change) any) any {
	c.encode.Do(func() { c.encoded = encode(c) })
	return c.encoded
}

// size returns the number of members, and about the memory of the change.
func (c *Change) size() (members, bytes int) {
	for _, m := range c.Put {
		bytes += len(m.ID) + len(m.Addr)
		for _, p := range m.Meta {
			bytes += len(p.Key) + len(p.Value)
		}
	}
	members = 1 + len(c.Put) + len(c.Removed)
	return members, bytes + members*128
}
