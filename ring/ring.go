package ring

import (
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Ring is an immutable consistent-hash ring. It is safe for concurrent use; to change a shared
// ring, publish the result of With through an atomic.Pointer[Ring].
type Ring struct {
	params  Params
	members []Member // in the order of their ids
	owners  int      // members with points
	table   *table   // with the owners that the bound gives
	moved   []moved  // arcs that the bound gave to another owner, by position
	bound   int      // the bound in force, per mille; 0 is off

	digestOnce func() uint64
}

// Hash returns the place of a key on the circle: XXH64 with seed 0.
func Hash(key string) uint64 { return xxhash.Sum64String(key) }

// New builds the ring of a set of members, given in any order. The slice is not retained.
// Errors wrap ErrParams, ErrMember, ErrDuplicate or ErrTooLarge.
func New(p Params, members []Member) (*Ring, error) {
	sorted, _, err := canonical(p, members)
	if err != nil {
		return nil, err
	}
	return assemble(p, sorted, build(sorted, p.VirtualNodes)), nil
}

// With returns the ring of another complete set of members, which is equal to New(p, members). It
// copies the points that both rings have instead of hashing and sorting them again, as long as
// that is cheaper. r is not changed. Errors are those of New.
func (r *Ring) With(p Params, members []Member) (*Ring, error) {
	sorted, total, err := canonical(p, members)
	if err != nil {
		return nil, err
	}
	c := r.changeTo(p, sorted, total/8)
	if c == nil {
		return assemble(p, sorted, build(sorted, p.VirtualNodes)), nil
	}
	t := c.apply(r.plainTable(), geometryOf(total, len(sorted)))
	if t == r.table && p.Bound != 0 {
		t = t.withOwnHeads()
	}
	return assemble(p, sorted, t), nil
}

// assemble makes a ring of a table without the bound, which may then change owners.
func assemble(p Params, sorted []Member, t *table) *Ring {
	r := &Ring{params: p, members: sorted, table: t}
	for _, m := range sorted {
		if m.Points(p.VirtualNodes) > 0 {
			r.owners++
		}
	}
	r.applyBound()
	r.digestOnce = sync.OnceValue(r.digest)
	return r
}

// Members returns a copy of all members, draining ones included, in the byte order of their ids.
func (r *Ring) Members() []Member { return slices.Clone(r.members) }

// Len returns the number of members, draining ones included.
func (r *Ring) Len() int { return len(r.members) }

// Member returns the member with index i, as Match returns it; the zero Member if there is none.
func (r *Ring) Member(i int) Member {
	if i < 0 || i >= len(r.members) {
		return Member{}
	}
	return r.members[i]
}

// Params returns the parameters that the ring was built with.
func (r *Ring) Params() Params { return r.params }

// Bound returns the bound in force, in per mille of the fair share: Params().Bound, or more if that
// could not be kept (see the package comment), or 0 without a bound.
func (r *Ring) Bound() int { return r.bound }

// NumPoints returns the number of points.
func (r *Ring) NumPoints() int { return r.table.n }
