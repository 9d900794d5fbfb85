package ring

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Match returns the index in Members of the key's owner, or -1 if no member has points. The index is
// that of this ring: another one may have the member elsewhere. Match takes no lock and allocates nothing.
func (r *Ring) Match(key string) int {
	t := r.table
	if t.n == 0 {
		return -1
	}
	return int(t.ownerAt(t.find(xxhash.Sum64String(key))))
}

// MatchN appends to dst the indexes of the key's owner and of the next distinct members clockwise:
// n of them, or all members that have points if those are fewer. The first is Match(key). Under a
// bound, the others are those of the ring without the bound. Up to n = 64 it allocates only what
// dst lacks.
func (r *Ring) MatchN(dst []int, key string, n int) []int {
	if n = min(n, r.owners); n <= 0 {
		return dst
	}
	at := r.table.find(xxhash.Sum64String(key))
	if at == r.table.n {
		at = 0
	}
	return r.clockwise(dst, at, n)
}

// clockwise appends the owner of the arc that ends at a position and then the next distinct members, n ≤ owners.
func (r *Ring) clockwise(dst []int, at, n int) []int {
	seen := newSeen(dst, n, len(r.members))
	seen.add(int(r.table.ownerAt(at)))
	for ; len(seen.list)-seen.first < n; at++ {
		if at == r.table.n {
			at = 0
		}
		seen.add(r.plainOwner(at))
	}
	return seen.list
}

// seen is a list of distinct members: searched while it is short, with a bitmap beside it when it is long.
type seen struct {
	list   []int
	first  int
	bitmap []uint64
}

func newSeen(dst []int, n, members int) seen {
	s := seen{list: dst, first: len(dst)}
	if n > 64 {
		s.bitmap = make([]uint64, members/64+1)
	}
	return s
}

func (s *seen) add(m int) {
	if s.bitmap == nil {
		if slices.Contains(s.list[s.first:], m) {
			return
		}
	} else if word := &s.bitmap[m/64]; *word>>(m%64)&1 != 0 {
		return
	} else {
		*word |= 1 << (m % 64)
	}
	s.list = append(s.list, m)
}

// batch is the number of keys that MatchBatch looks up together.
const batch = 32

// MatchBatch appends to dst what Match returns for each key. It takes the keys in groups, and each
// step for the whole group before the next step, so that the cache misses of a group overlap.
func (r *Ring) MatchBatch(dst []int32, keys []string) []int32 {
	dst = slices.Grow(dst, len(keys))
	if r.table.n == 0 {
		for range keys {
			dst = append(dst, -1)
		}
		return dst
	}
	for group := range slices.Chunk(keys, batch) {
		dst = r.table.matchGroup(dst, group)
	}
	return dst
}

// matchGroup appends the owners of up to batch keys.
func (t *table) matchGroup(dst []int32, keys []string) []int32 {
	var hash [batch]uint64
	var from, to [batch]uint32
	n := min(len(keys), batch)
	for i, key := range keys[:n] {
		hash[i] = xxhash.Sum64String(key)
	}
	for i, h := range hash[:n] {
		bucket := t.bucket(h)
		from[i], to[i] = t.start[bucket], t.start[bucket+1]
	}
	touch(t.head, from[:n], to[:n])
	for i, h := range hash[:n] {
		dst = append(dst, int32(t.ownerAt(t.scan(h, from[i], to[i]))))
	}
	return dst
}

// touch reads the first and last cache line of each bucket; nothing waits for the loads.
//
//go:noinline
func touch(head, from, to []uint32) (mixed uint32) {
	for i, at := range from {
		mixed |= head[at] | head[to[i]]
	}
	return mixed
}

// OwnerOf returns the index of the owner of all keys with a hash, or -1 if no member has points.
// OwnerOf(Hash(key)) is Match(key).
func (r *Ring) OwnerOf(hash uint64) int {
	t := r.table
	if t.n == 0 {
		return -1
	}
	return int(t.ownerAt(t.find(hash)))
}
