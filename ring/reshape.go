package ring

import (
	"runtime"
	"sync"
)

// serial is the number of points below which work is not worth splitting.
const serial = 1 << 14

// workersFor returns how many goroutines work on so many points.
func workersFor(points int) int {
	if points < serial {
		return 1
	}
	return min(runtime.GOMAXPROCS(0), 8)
}

// parallel runs f for each worker with its part of [0, n), and waits.
func parallel(workers, n int, f func(worker, lo, hi int)) {
	if workers == 1 {
		f(0, 0, n)
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { f(w, n*w/workers, n*(w+1)/workers) })
	}
	wg.Wait()
}

// reshape returns the same points in another geometry, which must have room for t's owners. Every
// point keeps its position. It returns t itself if the geometry is the same.
func (t *table) reshape(g geometry) *table {
	if g == t.geometry {
		return t
	}
	out := newTable(g, t.n)
	parallel(workersFor(t.n), 1<<t.b, func(_, lo, hi int) { t.reshapeBuckets(out, lo, hi) })
	for bucket := 0; g.b <= t.b && bucket < 1<<g.b; bucket++ {
		out.start[bucket] = t.start[bucket<<(t.b-g.b)]
	}
	out.start[1<<g.b] = uint32(t.n)
	out.head[t.n] = out.head[0]
	return out
}

// reshapeBuckets copies the points of the buckets [lo, hi) and, if out has more buckets, the starts
// of their parts. Shifts are masked only to spare the compiler's checks: all are below 64.
func (t *table) reshapeBuckets(out *table, lo, hi int) {
	mask, newMask, b, o, newB, newO := t.mask(), out.mask(), t.b&63, t.o&63, out.b&63, out.o&63
	for bucket := lo; bucket < hi; bucket++ {
		from, to := t.start[bucket], t.start[bucket+1]
		part, parts := 0, 0
		if newB > b {
			part, parts = bucket<<(newB-b), (bucket+1)<<(newB-b)
		}
		top := uint64(bucket) << (64 - b)
		heads, tails := t.head[from:to], t.tail[from:to]
		newHeads, newTails := out.head[from:to], out.tail[from:to]
		for i, head := range heads {
			hash := top | (uint64(head&^mask)<<32|uint64(tails[i])<<o)>>b
			w := hash << newB
			newHeads[i] = uint32(w>>32)&^newMask | head&mask
			newTails[i] = uint32(w >> newO)
			for ; part < parts && part <= out.bucket(hash); part++ {
				out.start[part] = from + uint32(i)
			}
		}
		for ; part < parts; part++ {
			out.start[part] = to
		}
	}
}
