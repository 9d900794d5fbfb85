//go:build linux

package disk

import (
	"maps"
	"path"
	"slices"
	"sync"
	"syscall"
)

// sector is what a disk writes whole.
const sector = 512

// Disk is the content.
type Disk struct {
	forgets string // see New

	mu     sync.Mutex // guards the rest, and the inodes
	root   *inode
	inodes map[uint64]*inode // those that the kernel may ask for
	lastID uint64
	clock  uint64 // counts changes
	moves  []move // changes of directories that were not synced
}

// inode is a file or a directory.
type inode struct {
	id     uint64
	mode   uint32
	parent *inode // by its last name, with name
	name   string
	links  int    // names
	known  uint64 // how often the kernel was told of it

	data, synced   []byte            // of a file
	writes         []write           // those that were not synced
	entries, saved map[string]*inode // of a directory, and those that were synced
}

// write is a write to a file or a change of its size.
type write struct {
	at   uint64 // of the clock
	from int
	data []byte
	size int // the file's afterwards
}

// move is a change of a directory's entries: one, or two for a rename.
type move struct {
	at      uint64
	dir     *inode
	entries map[string]*inode // nil: removed
}

// New makes an empty disk. Syncs of paths that match the pattern, as of
// path.Match, do nothing; the disk's own directory is ".".
func New(forgets string) *Disk {
	d := &Disk{forgets: forgets}
	d.root = &inode{mode: syscall.S_IFDIR | 0o700, links: 1, saved: make(map[string]*inode)}
	d.restore()
	return d
}

func (n *inode) isDir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (n *inode) path() string {
	if n.parent == nil {
		return "."
	}
	return path.Join(n.parent.path(), n.name)
}

// create makes an entry for a new inode.
func (d *Disk) create(dir *inode, name string, mode uint32) *inode {
	d.lastID++
	n := &inode{id: d.lastID, mode: mode}
	if n.isDir() {
		n.entries, n.saved = make(map[string]*inode), make(map[string]*inode)
	}
	d.inodes[n.id] = n
	d.change(dir, map[string]*inode{name: n})
	return n
}

// change changes entries of a directory: nil removes one.
func (d *Disk) change(dir *inode, entries map[string]*inode) {
	d.clock++
	d.moves = append(d.moves, move{d.clock, dir, entries})
	for name, n := range entries {
		if old := dir.entries[name]; old != nil {
			old.links--
		}
		if delete(dir.entries, name); n != nil {
			n.parent, n.name = dir, name
			n.links++
			dir.entries[name] = n
		}
	}
}

// rename moves an entry, over another one if that exists.
func (d *Disk) rename(from *inode, old string, to *inode, name string) {
	n := from.entries[old]
	if from == to {
		d.change(from, map[string]*inode{old: nil, name: n})
		return
	}
	d.change(from, map[string]*inode{old: nil})
	d.change(to, map[string]*inode{name: n})
	d.keepMoves(func(move) bool { return true })
}

// resize changes a file's size, write its content.
func (d *Disk) resize(n *inode, size int) { d.record(n, write{size: size}) }

func (d *Disk) write(n *inode, from int, data []byte) {
	d.record(n, write{from: from, data: slices.Clone(data), size: max(len(n.data), from+len(data))})
}

func (d *Disk) record(n *inode, w write) {
	d.clock++
	w.at = d.clock
	n.writes = append(n.writes, w)
	n.data = w.apply(n.data)
}

func (w write) apply(data []byte) []byte {
	data = resized(data, w.size)
	copy(data[min(w.from, len(data)):], w.data)
	return data
}

// resized is data cut off, or continued with zeros.
func resized(data []byte, size int) []byte {
	if have := len(data); size > have {
		data = slices.Grow(data, size-have)[:size]
		clear(data[have:])
	}
	return data[:size]
}

// sync keeps the content of a file, or the entries of a directory.
func (d *Disk) sync(n *inode) {
	if forget, _ := path.Match(d.forgets, n.path()); forget {
		return
	}
	if n.isDir() {
		d.keepMoves(func(m move) bool { return m.dir == n })
		return
	}
	for _, w := range n.writes {
		n.synced = w.apply(n.synced)
	}
	n.writes = nil
}

// keepMoves brings changes of directories to the disk.
func (d *Disk) keepMoves(which func(move) bool) {
	d.moves = slices.DeleteFunc(d.moves, func(m move) bool {
		if !which(m) {
			return false
		}
		for name, n := range m.entries {
			if delete(m.dir.saved, name); n != nil {
				m.dir.saved[name] = n
			}
		}
		return true
	})
}

// restore makes what is on the disk the content.
func (d *Disk) restore() {
	d.inodes, d.moves = make(map[uint64]*inode), nil
	d.root.links, d.root.known = 1, 0
	d.lastID = 0
	d.restoreInode(d.root)
}

func (d *Disk) restoreInode(n *inode) {
	d.lastID++
	n.id, n.known = d.lastID, 0
	d.inodes[n.id] = n
	n.data, n.writes = slices.Clone(n.synced), nil
	n.entries = maps.Clone(n.saved)
	for name, child := range n.entries {
		child.parent, child.name, child.links = n, name, 1
		d.restoreInode(child)
	}
}
