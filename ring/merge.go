package ring

import (
	"cmp"
	"slices"
	"strings"
)

// change is the difference between a ring's points and those of another member set. For example,
// from {a, c} to {b, c} at 64 points a member:
//
//	index  a: gone   c: 1         the new index of each old member
//	order  a: 0      c: 3         the rank of each old member among the ids of both sets
//	remove a_0 … a_63
//	add    b_0 … b_63             with order 1 and owner 0
type change struct {
	index []uint32
	order []uint32
	edits []edit
	same  bool // every old member keeps its index
}

// edit is one point to add or to remove.
type edit struct {
	hash   uint64
	order  uint32
	owner  uint32 // new index, for an addition
	remove bool
}

// span is an interval of a member's points that comes or goes.
type span struct {
	id     string
	lo, hi int
	edit   edit
}

// changeTo compares r's points with those of the members sorted under p; it returns nil if more than
// limit points come or go. The ranks of old and new members interleave: 2·i+1 for the new member i,
// 2·i for a leaving member just before it.
func (r *Ring) changeTo(p Params, sorted []Member, limit int) *change {
	c := &change{index: make([]uint32, len(r.members)), order: make([]uint32, len(r.members)), same: true}
	var spans []span
	had, has := r.params.VirtualNodes, p.VirtualNodes
	old, i := 0, 0
	for old < len(r.members) || i < len(sorted) {
		rank := uint32(2*i + 1)
		switch side := compareHeads(r.members[old:], sorted[i:]); {
		case side < 0:
			m := r.members[old]
			c.index[old], c.order[old] = 0, rank-1
			spans = append(spans, span{m.ID, 0, m.Points(had), edit{order: rank - 1, remove: true}})
			c.same = false
			old++
		case side > 0:
			spans = append(spans, span{sorted[i].ID, 0, sorted[i].Points(has), edit{order: rank, owner: uint32(i)}})
			i++
		default:
			c.index[old], c.order[old] = uint32(i), rank
			c.same = c.same && old == i
			before, after := r.members[old].Points(had), sorted[i].Points(has)
			e := edit{order: rank, owner: uint32(i), remove: after < before}
			spans = append(spans, span{sorted[i].ID, min(before, after), max(before, after), e})
			old, i = old+1, i+1
		}
	}
	if !c.list(spans, limit) {
		return nil
	}
	return c
}

// compareHeads compares the ids of the first members of two lists; an empty list is the greatest.
func compareHeads(a, b []Member) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return strings.Compare(a[0].ID, b[0].ID)
}

// list hashes the points that come or go; it reports false if there are more than limit.
func (c *change) list(spans []span, limit int) bool {
	count := 0
	for _, s := range spans {
		count += s.hi - s.lo
	}
	if count > limit {
		return false
	}
	c.edits = make([]edit, 0, count)
	var hashes []uint64
	for _, s := range spans {
		hashes = appendPointHashes(hashes[:0], s.id, s.lo, s.hi)
		for _, h := range hashes {
			s.edit.hash = h
			c.edits = append(c.edits, s.edit)
		}
	}
	slices.SortFunc(c.edits, func(a, b edit) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.order, b.order))
	})
	return true
}

// apply returns a table with the change made, in the geometry g. It does not change t, but returns
// t itself if nothing is different. The change is made in a geometry with room for the members and
// points before and after.
func (c *change) apply(t *table, g geometry) *table {
	t = t.reshape(geometry{max(t.b, g.b), max(t.o, g.o)})
	if !c.same || len(c.edits) > 0 {
		t = c.merge(t)
	}
	return t.reshape(g)
}

// position returns where in t an edit takes place: at the first point not before it.
func (c *change) position(t *table, e edit) int {
	bucket := t.bucket(e.hash)
	i, end := t.find(e.hash), int(t.start[bucket+1])
	for i < end && t.at(bucket, i) == e.hash && c.order[t.ownerAt(i)] < e.order {
		i++
	}
	return i
}

// merge copies the stretches of points between the edits.
func (c *change) merge(t *table) *table {
	n := t.n
	for _, e := range c.edits {
		n += e.delta()
	}
	out := newTable(t.geometry, n)
	from, to, bucket := 0, 0, 0
	for _, e := range c.edits {
		upTo := max(from, c.position(t, e))
		c.copyPoints(out, to, t, from, upTo)
		bucket = copyStarts(out, t, bucket, t.bucket(e.hash)+1, to-from)
		to += upTo - from
		from = upTo
		if e.remove {
			from++
		} else {
			out.put(to, out.word(e.hash, e.owner))
			to++
		}
	}
	c.copyPoints(out, to, t, from, t.n)
	copyStarts(out, t, bucket, len(t.start), to-from)
	out.head[n] = out.head[0]
	return out
}

// delta is what an edit adds to the number of points.
func (e edit) delta() int {
	if e.remove {
		return -1
	}
	return 1
}

// copyPoints copies t's points [from, upTo) to position to of out, with the new indexes of their owners.
func (c *change) copyPoints(out *table, to int, t *table, from, upTo int) {
	copy(out.tail[to:], t.tail[from:upTo])
	if c.same {
		copy(out.head[to:], t.head[from:upTo])
		return
	}
	mask, dst := t.mask(), out.head[to:to+upTo-from]
	for i, head := range t.head[from:upTo] {
		dst[i] = head&^mask | c.index[head&mask]
	}
}

// copyStarts copies the starts of the buckets [bucket, upTo), moved by shift, and returns the next bucket.
func copyStarts(out, t *table, bucket, upTo, shift int) int {
	for ; bucket < upTo; bucket++ {
		out.start[bucket] = t.start[bucket] + uint32(shift)
	}
	return bucket
}
