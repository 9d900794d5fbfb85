package watch

import (
	"sync"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/ring"
)

// Change is one step of a group, from one revision to a later one: what one or
// several entries of the log that were applied together made of it. It never
// changes, and holds no state of the machine.
type Change struct {
	Group string
	// From is the revision before, 0 for a new group, and FromFingerprint the
	// group's fingerprint there.
	From, FromFingerprint uint64
	Revision, Fingerprint uint64
	Index                 uint64 // applied, with the group at Revision
	Params                ring.Params
	// Removed goes before Put: a member that went and came again may be in both.
	// Both are ordered by id.
	Removed []string
	Put     []*fsm.Member

	encoded once
}

// newChange is the change of a group that exists after it.
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

// Encoded returns what encode makes of the change; it is called once.
func (c *Change) Encoded(encode func(*Change) any) any {
	return c.encoded.get(func() any { return encode(c) })
}

// size counts members, and about the bytes that remembering them costs.
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

// once keeps one value that is computed at the first call.
type once struct {
	sync.Once
	value any
}

func (o *once) get(compute func() any) any {
	o.Do(func() { o.value = compute() })
	return o.value
}
