package fsm

import (
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// metas shares equal metadata among members: the instances of a service mostly have the
// same zone and version, and two pairs would take a fifth of a member's memory. It holds
// what it saw last, one for each slot, so it is bounded whatever members come and go.
//
//	slot 7: version=1 zone=a    a member with equal metadata gets the slot's
//	                            one with other metadata and the same slot replaces it
type metas [metaSlots][]Pair

const (
	metaSlots = 4096
	// metaShared bounds the bytes of metadata that is shared, and with metaSlots what is
	// held for members that are gone, to 4 MiB.
	metaShared = 1 << 10
	pairSize   = 32
)

// pairs returns the metadata of a command or a record. The result must not be changed.
func (c *metas) pairs(in []*fsmpb.Pair) []Pair {
	if len(in) == 0 {
		return nil
	}
	size, sum := len(in)*pairSize, uint64(0)
	for _, p := range in {
		size += len(p.Key) + len(p.Value)
		sum = sum*31 + xxhash.Sum64String(p.Key) ^ xxhash.Sum64String(p.Value)
	}
	if size > metaShared {
		return newPairs(in)
	}
	slot := &c[sum%metaSlots]
	if !slices.EqualFunc(*slot, in, func(a Pair, b *fsmpb.Pair) bool { return a.Key == b.Key && a.Value == b.Value }) {
		*slot = newPairs(in)
	}
	return *slot
}

func newPairs(in []*fsmpb.Pair) []Pair {
	out := make([]Pair, len(in))
	for i, p := range in {
		out[i] = Pair{Key: p.Key, Value: p.Value}
	}
	return out
}
