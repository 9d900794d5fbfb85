package ring

// arcShares sums the arcs of each member, in units of 2^-64. If they are all zero, the owner of the
// first point has the whole key space: 2^64, which wrapped around.
func arcShares(t *table, members int) []uint64 {
	workers := workersFor(t.n)
	sums := make([][]uint64, workers)
	parallel(workers, 1<<t.b, func(worker, lo, hi int) { sums[worker] = t.arcSums(lo, hi, members) })
	for _, other := range sums[1:] {
		for m, share := range other {
			sums[0][m] += share
		}
	}
	return sums[0]
}

// arcSums sums the arcs that end in the buckets [lo, hi).
func (t *table) arcSums(lo, hi, members int) []uint64 {
	shares := make([]uint64, members)
	first, upTo := int(t.start[lo]), int(t.start[hi])
	if first == upTo {
		return shares
	}
	last := t.hashAt((first + t.n - 1) % t.n)
	mask, b, o := t.mask(), t.b&63, t.o&63
	for bucket := lo; bucket < hi; bucket++ {
		from, to := t.start[bucket], t.start[bucket+1]
		tails := t.tail[from:to]
		for i, head := range t.head[from:to] {
			hash := uint64(bucket)<<(64-b) | (uint64(head&^mask)<<32|uint64(tails[i])<<o)>>b
			shares[head&mask] += hash - last
			last = hash
		}
	}
	return shares
}

// arcAt returns the length of the arc that ends at a position: 2^64, written 0, if all points have one hash.
func (r *Ring) arcAt(at int) uint64 {
	before := at - 1
	if at == 0 {
		before = r.table.n - 1
	}
	return r.table.hashAt(at) - r.table.hashAt(before)
}

// arcs walks the key space of a ring from 0 to 2^64-1.
type arcs struct {
	t      *table
	bucket int
	at     int    // position of the point that ends the present arc; n for the last, wrapped one
	upTo   uint64 // last hash of the present arc
	owner  int    // of the present arc, or -1
}

func newArcs(r *Ring) *arcs {
	a := &arcs{t: r.table}
	a.load()
	return a
}

// skip goes on to the arc of the hash after h.
func (a *arcs) skip(h uint64) {
	for a.at < a.t.n && a.upTo <= h {
		a.at++
		a.load()
	}
}

func (a *arcs) load() {
	t := a.t
	if t.n == 0 {
		a.upTo, a.owner = ^uint64(0), -1
		return
	}
	a.owner = int(t.ownerAt(a.at))
	if a.at == t.n {
		a.upTo = ^uint64(0)
		return
	}
	for int(t.start[a.bucket+1]) <= a.at {
		a.bucket++
	}
	a.upTo = t.at(a.bucket, a.at)
}
