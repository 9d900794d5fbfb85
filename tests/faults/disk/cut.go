//go:build linux

package disk

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
)

// lasting says how much of what was not synced reached the disk before a cut.
type lasting interface {
	fmt.Stringer
	// until is the moment up to which changes of one thing were kept, of those at
	// the given moments: of a file's size, one of its sectors, or a directory.
	until(at []uint64) uint64
	// torn is how many of a write's sectors were kept, beyond that.
	torn(write) int
}

// nothing that was not synced was kept.
type nothing struct{}

func (nothing) until([]uint64) uint64 { return 0 }
func (nothing) torn(write) int        { return 0 }
func (nothing) String() string        { return "nothing" }

// ordered keeps what came before a moment, and of the write then its first sectors.
type ordered struct {
	moment uint64
	r      *rand.Rand
}

func (o ordered) until([]uint64) uint64 { return o.moment }
func (o ordered) torn(w write) int {
	if w.at != o.moment+1 {
		return 0
	}
	return o.r.IntN(len(w.data)/sector + 2)
}
func (o ordered) String() string { return fmt.Sprint("what came up to ", o.moment) }

// some keeps of every sector, size and directory what came before a moment of its own.
type some struct{ r *rand.Rand }

func (s some) until(at []uint64) uint64 {
	if i := s.r.IntN(len(at) + 1); i > 0 {
		return at[i-1]
	}
	return 0
}
func (some) torn(write) int { return 0 }
func (some) String() string { return "some" }

// draw draws what a cut keeps. A moment is rather a late one.
func (d *Disk) draw(r *rand.Rand) lasting {
	switch r.IntN(3) {
	case 0:
		return nothing{}
	case 1:
		return ordered{d.clock - min(d.clock, r.Uint64N(1<<r.IntN(12))), r}
	default:
		return some{r}
	}
}

// cut forgets what was not synced, but for what lasts by chance.
func (d *Disk) cut(r *rand.Rand) (lost string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.draw(r)
	moves, writes := len(d.moves), 0
	var dirs []*inode
	at := make(map[*inode][]uint64)
	for _, m := range d.moves {
		if at[m.dir] == nil {
			dirs = append(dirs, m.dir)
		}
		at[m.dir] = append(at[m.dir], m.at)
	}
	for _, dir := range dirs {
		until := kept.until(at[dir])
		d.keepMoves(func(m move) bool { return m.dir == dir && m.at <= until })
	}
	d.walk(d.root, func(n *inode) {
		writes += len(n.writes)
		n.keepWrites(kept)
	})
	d.restore()
	return fmt.Sprintf("kept %v of %d changes of directories and %d of files", kept, moves, writes)
}

// walk calls f for what is on the disk, in the order of names.
func (d *Disk) walk(n *inode, f func(*inode)) {
	f(n)
	for _, name := range slices.Sorted(maps.Keys(n.saved)) {
		d.walk(n.saved[name], f)
	}
}

// keepWrites brings to the disk what lasts of a file's writes.
func (n *inode) keepWrites(kept lasting) {
	var sizes []uint64
	touched := make(map[int][]uint64) // when, by sector
	for _, w := range n.writes {
		sizes = append(sizes, w.at)
		for s := range w.sectors() {
			touched[s] = append(touched[s], w.at)
		}
	}
	until := make(map[int]uint64)
	for _, s := range slices.Sorted(maps.Keys(touched)) {
		until[s] = kept.until(touched[s])
	}
	size, sized := len(n.synced), kept.until(sizes)
	for _, w := range n.writes {
		torn := kept.torn(w)
		for s := range w.sectors() {
			if w.at <= until[s] || torn > 0 {
				n.put(w, s)
			}
			torn--
		}
		if w.at > sized {
			continue
		}
		if size = w.size; len(w.data) == 0 {
			n.synced = n.synced[:min(len(n.synced), size)]
		}
	}
	n.synced = resized(n.synced, size)
}

// sectors are those that a write touches.
func (w write) sectors() iter.Seq[int] {
	return func(yield func(int) bool) {
		for s := w.from / sector; len(w.data) > 0 && s <= (w.from+len(w.data)-1)/sector && yield(s); s++ {
		}
	}
}

// put brings a sector of a write to the disk.
func (n *inode) put(w write, s int) {
	from, to := max(w.from, s*sector), min(w.from+len(w.data), (s+1)*sector)
	n.synced = resized(n.synced, max(len(n.synced), to))
	copy(n.synced[from:to], w.data[from-w.from:])
}
