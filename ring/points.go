package ring

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Point is one virtual node: a place on the circle of hashes. The keys with hashes above the point
// before, up to and including this one, belong to Owner.
type Point struct {
	Hash   uint64 // XXH64(id + "_" + decimal(Index))
	Member int    // index in Members of the member whose point it is
	Index  int    // 0 to VirtualNodes × Weight - 1
	Owner  int    // index in Members of the owner of its keys; differs from Member only under a bound
}

// Points yields the points in ring order. The first use of an iterator takes 12 bytes a point, and the time to
// hash all points again, because a ring does not store their indexes.
func (r *Ring) Points() iter.Seq[Point] {
	return func(yield func(Point) bool) {
		indexes := r.indexes()
		next := make([]int, len(r.members))
		for at, hash := range r.table.all() {
			m := r.plainOwner(at)
			index := indexes[m][next[m]]
			next[m]++
			if !yield(Point{hash, m, int(index), int(r.table.ownerAt(at))}) {
				return
			}
		}
	}
}

// indexes returns the indexes of each member's points in ring order.
func (r *Ring) indexes() [][]uint32 {
	all := make([][]uint32, len(r.members))
	var hashes []uint64
	for m, member := range r.members {
		hashes = appendPointHashes(hashes[:0], member.ID, 0, member.Points(r.params.VirtualNodes))
		order := make([]uint32, len(hashes))
		for i := range order {
			order[i] = uint32(i)
		}
		slices.SortFunc(order, func(a, b uint32) int {
			return cmp.Or(cmp.Compare(hashes[a], hashes[b]), cmp.Compare(a, b))
		})
		all[m] = order
	}
	return all
}

// PointRecord is a point with ids instead of indexes, for JSON. Hashes are hexadecimal texts,
// because many JSON readers keep only 53 bits of a number.
type PointRecord struct {
	Hash  Hex64  `json:"hash"`
	ID    string `json:"id"`
	Index int    `json:"index"`
	Owner string `json:"owner,omitempty"` // only where the bound gave the keys to another member
}

// Record returns a point of r with ids instead of indexes.
func (r *Ring) Record(p Point) PointRecord {
	rec := PointRecord{Hash: Hex64(p.Hash), ID: r.Member(p.Member).ID, Index: p.Index}
	if p.Owner != p.Member {
		rec.Owner = r.Member(p.Owner).ID
	}
	return rec
}

// ErrHash: a text is not a hexadecimal hash.
var ErrHash = errors.New("ring: invalid hash")

// Hex64 is an unsigned integer that JSON and text write as "0x" and 16 hexadecimal digits.
type Hex64 uint64

// String returns "0x" and 16 hexadecimal digits.
func (h Hex64) String() string { return fmt.Sprintf("0x%016x", uint64(h)) }

// MarshalText returns String.
func (h Hex64) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads "0x" and 1 to 16 hexadecimal digits. Errors wrap ErrHash.
func (h *Hex64) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), "0x")
	n, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil || len(digits) > 16 {
		return fmt.Errorf("%w: %q, want 0x and 1 to 16 hexadecimal digits", ErrHash, text)
	}
	*h = Hex64(n)
	return nil
}
