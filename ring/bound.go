package ring

import (
	"cmp"
	"slices"
)

// moved is an arc that the bound took from the member whose point ends it.
type moved struct {
	at    uint32 // position of the point
	plain uint32 // the point's member
}

// plainOwner returns the member whose point is at a position, without the bound.
func (r *Ring) plainOwner(at int) int {
	if i, ok := r.movedAt(at); ok {
		return int(r.moved[i].plain)
	}
	return int(r.table.ownerAt(at))
}

func (r *Ring) movedAt(at int) (int, bool) {
	if len(r.moved) == 0 {
		return 0, false
	}
	return slices.BinarySearchFunc(r.moved, uint32(at), func(m moved, at uint32) int { return cmp.Compare(m.at, at) })
}

// plainTable returns the table without the bound.
func (r *Ring) plainTable() *table {
	if len(r.moved) == 0 {
		return r.table
	}
	t := r.table.withOwnHeads()
	for _, m := range r.moved {
		t.setOwner(int(m.at), m.plain)
	}
	return t
}

func (t *table) withOwnHeads() *table {
	c := *t
	c.head = slices.Clone(t.head)
	return &c
}

// applyBound gives whole arcs of members above their cap to members with room. If an arc finds no
// room, the excess of the bound over the fair share doubles, until all arcs fit.
func (r *Ring) applyBound() {
	r.bound = r.params.Bound
	if r.bound == 0 || r.table.n == 0 {
		return
	}
	plain := arcShares(r.table, len(r.members))
	for {
		b := r.newBounder(slices.Clone(plain))
		if b.shed() && b.place() {
			r.relabel(b.arcs)
			return
		}
		r.bound = 1000 + 2*(r.bound-1000)
	}
}

// totalWeight sums the weights of the members with points.
func (r *Ring) totalWeight() uint64 {
	total := uint64(0)
	for _, m := range r.members {
		if m.State != Draining {
			total += uint64(m.Weight)
		}
	}
	return total
}

// relabel sets the arcs' new owners.
func (r *Ring) relabel(arcs []arc) {
	slices.SortFunc(arcs, func(a, b arc) int { return cmp.Compare(a.at, b.at) })
	for _, a := range arcs {
		if plain := r.table.ownerAt(a.at); plain != a.owner {
			r.moved = append(r.moved, moved{uint32(a.at), plain})
			r.table.setOwner(a.at, a.owner)
		}
	}
}
