package ring

import (
	"iter"
	"math/bits"
	"sort"
)

// table holds the points of a ring in the order (hash, member), in 8 bytes a point and at most one
// more for the index.
//
// The top b bits of a hash name its bucket, and start[bucket] is the position of the bucket's first
// point. The other 64-b bits are spread over two arrays, so that a lookup reads half a point:
//
//	hash  bbbbbbbb hhhhhhhhhhhhhhhhhhhhhhhh tttttttttttttttttttttttttttttttt
//	head           hhhhhhhhhhhhhhhhhhhhhhhh oooooooo     the next 32-o bits, and the owner's index
//	tail                                             tttttttttttttttttttttttttttttttt
//
// Because o ≤ b no bit of the hash is lost. For example with b = 8 and o = 8 (1,500 points of up to
// 256 members), hash 0xAB123456_789ABCDE of member 7 is in bucket 0xAB, with head 0x12345607 and
// tail 0x789ABCDE.
//
// A key's hash is compared with the heads of its bucket, 4 to 8 of them, in one or two cache lines.
// A tail is read only if the bits in the head are equal: about once in 2^(32-o) / 8 lookups. Past the
// end of the bucket the next point is the answer, in whatever bucket it is, and head[n] repeats
// head[0] for the keys after the last point.
type table struct {
	start []uint32 // 2^b + 1 positions
	head  []uint32 // n, then head[0] again, then zeros to fill the last window
	tail  []uint32 // n
	n     int      // points
	geometry
}

// geometry is the number of bits of the bucket (b) and of the owner's index (o), 1 ≤ o ≤ b.
type geometry struct{ b, o uint }

// window is the number of heads that a lookup may look at, and the size from which a bucket is
// searched by halving with branches instead. Hashes of honest ids rarely reach it; XXH64 does not
// resist ids chosen to collide.
const window = 16

// geometryOf gives buckets of 4 to 8 points on average; more buckets only if there are more members
// (nearly all of them draining) than buckets.
func geometryOf(points, members int) geometry {
	o := max(1, bits.Len(uint(max(members, 1)-1)))
	b := max(1, bits.Len(uint(max(points, 1)-1))-3)
	return geometry{b: uint(max(b, o)), o: uint(o)}
}

func newTable(g geometry, n int) *table {
	return &table{
		start:    make([]uint32, 1<<g.b+1),
		head:     make([]uint32, n+window),
		tail:     make([]uint32, n),
		n:        n,
		geometry: g,
	}
}

// bytes returns the memory of the table.
func (t *table) bytes() int { return 4 * (len(t.start) + len(t.head) + len(t.tail)) }

// word is a point inside its bucket: the 64-b low bits of the hash, and the owner below them.
// The order of words is the order of points.
func (g geometry) word(hash uint64, owner uint32) uint64 { return hash<<(g.b&63) | uint64(owner) }

func (g geometry) bucket(hash uint64) int { return int(hash >> ((64 - g.b) & 63)) }

func (g geometry) mask() uint32 { return 1<<g.o - 1 }

// put stores a word at position i.
func (t *table) put(i int, w uint64) {
	mask := t.mask()
	t.head[i] = uint32(w>>32)&^mask | uint32(w)&mask
	t.tail[i] = uint32(w >> t.o)
}

// at returns the hash of the point at position i, which is in the given bucket.
func (t *table) at(bucket, i int) uint64 {
	rest := uint64(t.head[i]&^t.mask())<<32 | uint64(t.tail[i])<<t.o
	return uint64(bucket)<<(64-t.b) | rest>>t.b
}

// hashAt returns the hash of the point at position i in O(log buckets).
func (t *table) hashAt(i int) uint64 {
	bucket := sort.Search(1<<t.b, func(k int) bool { return int(t.start[k+1]) > i })
	return t.at(bucket, i)
}

// ownerAt returns the owner of the point at position i, 0 ≤ i ≤ n.
func (t *table) ownerAt(i int) uint32 { return t.head[i] & t.mask() }

// setOwner replaces the owner of the point at position i.
func (t *table) setOwner(i int, owner uint32) {
	t.head[i] = t.head[i]&^t.mask() | owner
	if i == 0 {
		t.head[t.n] = t.head[0]
	}
}

// all yields position and hash of every point in order.
func (t *table) all() iter.Seq2[int, uint64] {
	return func(yield func(int, uint64) bool) {
		for bucket := range len(t.start) - 1 {
			for i := int(t.start[bucket]); i < int(t.start[bucket+1]); i++ {
				if !yield(i, t.at(bucket, i)) {
					return
				}
			}
		}
	}
}

// find returns the position of the first point whose hash is at least h, or n.
// ownerAt is valid for both: position n repeats position 0.
func (t *table) find(h uint64) int {
	bucket := t.bucket(h)
	return t.scan(h, t.start[bucket], t.start[bucket+1])
}

// scan is find inside the positions [i, end) of the hash's bucket: four steps of halving without a
// branch that depends on the data, which a processor would mispredict at every other lookup.
func (t *table) scan(h uint64, i, end uint32) int {
	size := uint64(end - i)
	if size >= window {
		return t.search(h, i, end)
	}
	want := uint32(h<<(t.b&63)>>32) &^ t.mask()
	heads := (*[window]uint32)(t.head[i:])
	at := below(heads[7], want, 7, size) * 8
	at += below(heads[(at+3)%window], want, at+3, size) * 4
	at += below(heads[(at+1)%window], want, at+1, size) * 2
	at += below(heads[at%window], want, at, size)
	if at < size && heads[at%window]&^t.mask() == want {
		return t.search(h, i, end)
	}
	return int(i) + int(at)
}

// below returns 1 if head < want and place < size, and 0 otherwise.
func below(head, want uint32, place, size uint64) uint64 {
	return (uint64(head) - uint64(want)) & (place - size) >> 63
}

// search is scan with the tails, for any size.
func (t *table) search(h uint64, i, end uint32) int {
	rest := h << t.b
	want, tail := uint32(rest>>32)&^t.mask(), uint32(rest>>t.o)
	for i < end {
		mid := i + (end-i)/2
		head := t.head[mid] &^ t.mask()
		if head < want || head == want && t.tail[mid] < tail {
			i = mid + 1
		} else {
			end = mid
		}
	}
	return int(i)
}
