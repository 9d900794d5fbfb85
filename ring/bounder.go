package ring

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// maxWalk is the number of points that an arc looks at, clockwise, for a member with room.
const maxWalk = 4096

// bounder is one attempt to keep a bound.
type bounder struct {
	r       *Ring
	share   []uint64
	limit   []uint64 // cap of each member
	limited []bool   // false: the cap is at least the key space
	whole   int      // the member whose share of 0 means 2^64, or -1
	arcs    []arc
}

// arc is a shed arc, and then its new owner.
type arc struct {
	at    int
	size  uint64
	mix   uint64
	owner uint32
}

func (r *Ring) newBounder(share []uint64) *bounder {
	n := len(r.members)
	b := &bounder{r: r, share: share, limit: make([]uint64, n), limited: make([]bool, n), whole: -1}
	if slices.Max(share) == 0 {
		b.whole = int(r.table.ownerAt(0))
	}
	total := r.totalWeight()
	for m, member := range r.members {
		b.limit[m], b.limited[m] = fairShare(uint64(r.bound), uint64(member.Weight), total)
	}
	return b
}

func (b *bounder) over(m int) bool {
	return b.limited[m] && (b.share[m] > b.limit[m] || m == b.whole)
}

func (b *bounder) room(m int, size uint64) bool {
	return !b.limited[m] || !b.over(m) && size <= b.limit[m]-b.share[m]
}

// shed takes arcs from each member above its cap, by descending index of their points, until it is
// within. It reports false if a member stays above: then all points of the ring have one hash.
func (b *bounder) shed() bool {
	var hashes []uint64
	for m, member := range b.r.members {
		if !b.over(m) {
			continue
		}
		hashes = appendPointHashes(hashes[:0], member.ID, 0, member.Points(b.r.params.VirtualNodes))
		for i := len(hashes) - 1; i >= 0 && b.over(m); i-- {
			at := b.r.positionOf(hashes, i, uint32(m))
			size := b.r.arcAt(at)
			if size == 0 {
				continue
			}
			b.share[m] -= size
			b.whole = -1
			b.arcs = append(b.arcs, arc{at: at, size: size, mix: mix(hashes[i])})
		}
		if b.over(m) {
			return false
		}
	}
	slices.SortFunc(b.arcs, func(x, y arc) int { return cmp.Compare(x.mix, y.mix) })
	return true
}

// mix is the order in which arcs are placed: XXH64 of the hash's eight bytes, little endian.
func mix(hash uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], hash)
	return xxhash.Sum64(b[:])
}

// place gives each arc to the first member clockwise with room; it reports false if one finds none.
func (b *bounder) place() bool {
	t := b.r.table
	for i := range b.arcs {
		a := &b.arcs[i]
		at, placed := a.at, false
		for range min(t.n-1, maxWalk) {
			if at++; at == t.n {
				at = 0
			}
			if m := t.ownerAt(at); b.room(int(m), a.size) {
				a.owner, placed = m, true
				b.share[m] += a.size
				break
			}
		}
		if !placed {
			return false
		}
	}
	return true
}

// positionOf returns the position of point i of a member, of which hashes are all points. Points of
// one member with equal hashes lie in the order of their indexes.
func (r *Ring) positionOf(hashes []uint64, i int, member uint32) int {
	t := r.table
	at := t.find(hashes[i])
	for r.plainOwner(at) != int(member) {
		at++
	}
	if at+1 < t.n && r.plainOwner(at+1) == int(member) && r.table.hashAt(at+1) == hashes[i] {
		for _, h := range hashes[:i] {
			if h == hashes[i] {
				at++
			}
		}
	}
	return at
}
