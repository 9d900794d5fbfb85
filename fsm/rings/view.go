package rings

import (
	"fmt"
	"sync/atomic"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/ring"
)

// View is a group's ring with the members that it was built from. They never
// change.
type View struct {
	Ring *ring.Ring
	// Revision and Fingerprint are those of the group that the ring was built from,
	// and Index is the applied index of that state.
	Revision, Fingerprint uint64
	Index                 uint64

	members []*fsm.Member // by the ring's member index

	missed atomic.Pointer[missed] // nil while the group is at the revision
}

// Member returns the member with the ring's index i.
func (v *View) Member(i int) *fsm.Member { return v.members[i] }

// bytes is about the memory of the view.
func (v *View) bytes() int64 { return int64(v.Ring.Bytes() + 8*len(v.members) + entryBytes) }

// entryBytes is about the memory of a ring beside its points and members.
const entryBytes = 1 << 10

// buildFactor × a ring's memory is the memory of building it.
const buildFactor = 3

// buildBytes is about the memory of building the group's ring.
func buildBytes(g *fsm.Group) int64 {
	const point, member = 9, 32 + 40
	return buildFactor * (int64(g.Points())*point + int64(g.Len())*member + entryBytes)
}

// Build makes a view of a group of the state, outside the cache.
func Build(s *fsm.State, g *fsm.Group) (*View, error) { return build(s, g, nil) }

// build makes the view of a group, based on the previous one if there is one.
func build(s *fsm.State, g *fsm.Group, old *View) (*View, error) {
	v := &View{Revision: g.Revision, Fingerprint: g.Fingerprint(), Index: s.Index(), members: make([]*fsm.Member, 0, g.Len())}
	members := make([]ring.Member, 0, g.Len())
	for m := range g.Members {
		v.members = append(v.members, m)
		members = append(members, ring.Member{ID: m.ID, Weight: int(m.Weight), State: m.State})
	}
	var err error
	if old != nil {
		v.Ring, err = old.Ring.With(g.Params, members)
	} else {
		v.Ring, err = ring.New(g.Params, members)
	}
	if err != nil {
		return nil, fmt.Errorf("ring of group %q at revision %d: %w", g.Name, g.Revision, err)
	}
	return v, nil
}

// rebuild makes the same view without a previous one.
func (v *View) rebuild() (*View, error) {
	r, err := ring.New(v.Ring.Params(), v.Ring.Members())
	if err != nil {
		return nil, err
	}
	again := &View{Ring: r, Revision: v.Revision, Fingerprint: v.Fingerprint, Index: v.Index, members: v.members}
	again.missed.Store(v.missed.Load())
	return again, nil
}
