package ring

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Range is an interval of key hashes [Lo, Hi) that has another owner in another ring. Hi = 0 stands for 2^64.
type Range struct {
	Lo, Hi   uint64
	From, To string // member ids; empty for a ring without points
}

// Share returns the size of the range.
func (r Range) Share() Share {
	if r.Lo == 0 && r.Hi == 0 {
		return Share{Hi: 1}
	}
	return Share{Lo: r.Hi - r.Lo}
}

// Contains reports whether a key's hash is in the range.
func (r Range) Contains(hash uint64) bool { return r.Lo <= hash && hash <= r.Hi-1 }

type rangeJSON struct {
	Lo   Hex64  `json:"lo"`
	Hi   string `json:"hi"`
	From string `json:"from"`
	To   string `json:"to"`
}

const endOfSpace = "0x10000000000000000"

// MarshalJSON writes the hashes as hexadecimal texts, and 2^64 as such.
func (r Range) MarshalJSON() ([]byte, error) {
	hi := Hex64(r.Hi).String()
	if r.Hi == 0 {
		hi = endOfSpace
	}
	return json.Marshal(rangeJSON{Hex64(r.Lo), hi, r.From, r.To})
}

// UnmarshalJSON reads what MarshalJSON writes. Errors wrap ErrHash.
func (r *Range) UnmarshalJSON(data []byte) error {
	var v rangeJSON
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("%w: %w", ErrHash, err)
	}
	var hi Hex64
	if v.Hi != endOfSpace {
		if err := hi.UnmarshalText([]byte(v.Hi)); err != nil {
			return err
		}
		if hi <= v.Lo {
			return fmt.Errorf("%w: range [%v, %v) is empty", ErrHash, v.Lo, hi)
		}
	}
	*r = Range{uint64(v.Lo), uint64(hi), v.From, v.To}
	return nil
}

// Diff returns the ranges of key hashes whose owner is not the same in a and b, in ascending order
// and as long as they can be. A key moves from a to b exactly if its hash is in one of them.
func Diff(a, b *Ring) []Range { return slices.Collect(DiffSeq(a, b)) }

// DiffSeq yields what Diff returns, without holding it in memory.
func DiffSeq(a, b *Ring) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		same := matchIDs(a.members, b.members)
		x, y := newArcs(a), newArcs(b)
		var open Range
		opened := false
		for lo, last := uint64(0), false; !last; {
			hi := min(x.upTo, y.upTo)
			differ := x.owner < 0 != (y.owner < 0) || x.owner >= 0 && same[x.owner] != y.owner
			if differ {
				from, to := a.idOf(x.owner), b.idOf(y.owner)
				if opened && open.Hi == lo && open.From == from && open.To == to {
					open.Hi = hi + 1
				} else {
					if opened && !yield(open) {
						return
					}
					open, opened = Range{lo, hi + 1, from, to}, true
				}
			}
			last = hi == ^uint64(0)
			lo = hi + 1
			x.skip(hi)
			y.skip(hi)
		}
		if opened {
			yield(open)
		}
	}
}

// idOf returns a member's id, or "" for no owner.
func (r *Ring) idOf(owner int) string {
	if owner < 0 {
		return ""
	}
	return r.members[owner].ID
}

// matchIDs returns for each member of a its index in b, or -2 if it is not there. Both are in order.
func matchIDs(a, b []Member) []int {
	index := make([]int, len(a))
	j := 0
	for i, m := range a {
		for j < len(b) && strings.Compare(b[j].ID, m.ID) < 0 {
			j++
		}
		if index[i] = -2; j < len(b) && b[j].ID == m.ID {
			index[i] = j
		}
	}
	return index
}
