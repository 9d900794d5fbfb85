package ring

import (
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// source enumerates the points of a member set: point number g, 0 ≤ g < total, belongs to member m
// when first[m] ≤ g < first[m+1].
type source struct {
	members []Member
	first   []int
}

func newSource(members []Member, k int) source {
	first := make([]int, len(members)+1)
	for m, member := range members {
		first[m+1] = first[m] + member.Points(k)
	}
	return source{members, first}
}

func (s source) total() int { return s.first[len(s.members)] }

// each calls f with every member that has points in [lo, hi), and its share of that interval.
func (s source) each(lo, hi int, f func(m, lo, hi int)) {
	m, found := slices.BinarySearch(s.first, lo)
	if !found {
		m--
	}
	for ; m < len(s.members) && s.first[m] < hi; m++ {
		if from, to := max(lo, s.first[m]), min(hi, s.first[m+1]); from < to {
			f(m, from, to)
		}
	}
}

// appendPointHashes appends the hashes of the points lo to hi-1 of the member id.
// Tests replace it by one that collides.
var appendPointHashes = xxh64Points

func xxh64Points(dst []uint64, id string, lo, hi int) []uint64 {
	var space [MaxIDLength + 32]byte
	name := append(space[:0], id...)
	name = append(name, '_')
	prefix := len(name)
	for i := lo; i < hi; i++ {
		name = strconv.AppendInt(name[:prefix], int64(i), 10)
		dst = append(dst, xxhash.Sum64(name))
	}
	return dst
}

// build makes the table of a member set: hash every point, count the buckets, scatter, and sort
// each bucket. Each phase is split over the processors, and the sort makes the result independent
// of the split. It takes up to 24 bytes a point for the moment.
func build(members []Member, k int) *table {
	s := newSource(members, k)
	b := builder{source: s, t: newTable(geometryOf(s.total(), len(members)), 0)}
	b.workers = workersFor(s.total())
	b.hash()
	b.place()
	b.scatter()
	b.sort()
	return b.t
}

type builder struct {
	source
	t       *table
	workers int
	hashes  []uint64   // by point number
	next    [][]uint32 // per worker and bucket: the count, then the next free position
	words   []uint64   // by position
}

func (b *builder) hash() {
	b.hashes = make([]uint64, b.total())
	b.next = make([][]uint32, b.workers)
	parallel(b.workers, b.total(), func(worker, lo, hi int) {
		count := make([]uint32, 1<<b.t.b)
		b.each(lo, hi, func(m, lo, hi int) {
			first := b.first[m]
			for _, h := range appendPointHashes(b.hashes[lo:lo], b.members[m].ID, lo-first, hi-first) {
				count[b.t.bucket(h)]++
			}
		})
		b.next[worker] = count
	})
}

// place turns the counts into positions.
func (b *builder) place() {
	at := uint32(0)
	for bucket := range 1 << b.t.b {
		b.t.start[bucket] = at
		for _, next := range b.next {
			next[bucket], at = at, at+next[bucket]
		}
	}
	b.t.start[1<<b.t.b] = at
}

func (b *builder) scatter() {
	b.words = make([]uint64, b.total())
	parallel(b.workers, b.total(), func(worker, lo, hi int) {
		next := b.next[worker]
		b.each(lo, hi, func(m, lo, hi int) {
			for _, h := range b.hashes[lo:hi] {
				at := &next[b.t.bucket(h)]
				b.words[*at] = b.t.word(h, uint32(m))
				*at++
			}
		})
	})
	b.hashes, b.next = nil, nil
}

// sort orders the words of each bucket and packs them into the table.
func (b *builder) sort() {
	t := b.t
	t.n = b.total()
	t.head, t.tail = make([]uint32, t.n+window), make([]uint32, t.n)
	parallel(b.workers, 1<<t.b, func(_, lo, hi int) {
		for bucket := lo; bucket < hi; bucket++ {
			from, to := int(t.start[bucket]), int(t.start[bucket+1])
			words := b.words[from:to]
			sortWords(words)
			for i, w := range words {
				t.put(from+i, w)
			}
		}
	})
	t.head[t.n] = t.head[0]
}

// sortWords sorts by insertion while the bucket has the usual size.
func sortWords(words []uint64) {
	if len(words) > 2*window {
		slices.Sort(words)
		return
	}
	for i := 1; i < len(words); i++ {
		w, j := words[i], i
		for ; j > 0 && words[j-1] > w; j-- {
			words[j] = words[j-1]
		}
		words[j] = w
	}
}
