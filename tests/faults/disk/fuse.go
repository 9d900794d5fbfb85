//go:build linux

package disk

import (
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// files answers the kernel. What it leaves out, as links and attributes of
// files' owners, is refused.
type files struct {
	fuse.RawFileSystem
	*Disk

	listMu   sync.Mutex // guards the rest
	listings map[uint64][]fuse.DirEntry
	lastList uint64
}

func newFiles(d *Disk) *files {
	return &files{RawFileSystem: fuse.NewDefaultRawFileSystem(), Disk: d, listings: make(map[uint64][]fuse.DirEntry)}
}

// valid is how long the kernel may keep what it was told: only it changes files.
const valid = time.Hour

func (n *inode) attr(a *fuse.Attr) {
	*a = fuse.Attr{Ino: n.id, Size: uint64(len(n.data)), Blocks: uint64(len(n.data)+sector-1) / sector, Mode: n.mode, Nlink: uint32(n.links), Blksize: 4096}
}

func (n *inode) entry(out *fuse.EntryOut) fuse.Status {
	n.known++
	out.NodeId = n.id
	n.attr(&out.Attr)
	out.SetEntryTimeout(valid)
	out.SetAttrTimeout(valid)
	return fuse.OK
}

// in calls f with the inode, which it locks.
func (f *files) in(id uint64, do func(*inode) fuse.Status) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.inodes[id]
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	return do(n)
}

// named is in for an entry of a directory.
func (f *files) named(dir uint64, name string, do func(dir, n *inode) fuse.Status) fuse.Status {
	return f.in(dir, func(d *inode) fuse.Status {
		n := d.entries[name]
		if n == nil {
			return fuse.ENOENT
		}
		return do(d, n)
	})
}

func (f *files) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return f.named(h.NodeId, name, func(_, n *inode) fuse.Status { return n.entry(out) })
}

func (f *files) Forget(id, times uint64) {
	f.in(id, func(n *inode) fuse.Status {
		if n.known -= min(times, n.known); n.known == 0 && n.links == 0 {
			delete(f.inodes, id)
		}
		return fuse.OK
	})
}

func (f *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.in(in.NodeId, func(n *inode) fuse.Status {
		n.attr(&out.Attr)
		out.SetTimeout(valid)
		return fuse.OK
	})
}

func (f *files) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.in(in.NodeId, func(n *inode) fuse.Status {
		if size, ok := in.GetSize(); ok {
			f.resize(n, int(size))
		}
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&syscall.S_IFMT | mode
		}
		n.attr(&out.Attr)
		out.SetTimeout(valid)
		return fuse.OK
	})
}

func (f *files) make(dir uint64, name string, mode uint32, out *fuse.EntryOut) fuse.Status {
	return f.in(dir, func(d *inode) fuse.Status {
		if d.entries[name] != nil {
			return fuse.Status(syscall.EEXIST)
		}
		return f.create(d, name, mode).entry(out)
	})
}

func (f *files) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.make(in.NodeId, name, syscall.S_IFDIR|in.Mode&0o7777, out)
}

func (f *files) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return f.make(in.NodeId, name, syscall.S_IFREG|in.Mode&0o7777, &out.EntryOut)
}

func (f *files) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.named(h.NodeId, name, func(dir, n *inode) fuse.Status {
		f.change(dir, map[string]*inode{name: nil})
		return fuse.OK
	})
}

func (f *files) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.named(h.NodeId, name, func(dir, n *inode) fuse.Status {
		if len(n.entries) > 0 {
			return fuse.Status(syscall.ENOTEMPTY)
		}
		f.change(dir, map[string]*inode{name: nil})
		return fuse.OK
	})
}

func (f *files) Rename(_ <-chan struct{}, in *fuse.RenameIn, old, name string) fuse.Status {
	if in.Flags != 0 {
		return fuse.EINVAL
	}
	return f.named(in.NodeId, old, func(dir, _ *inode) fuse.Status {
		to := f.inodes[in.Newdir]
		if over := to.entries[name]; over != nil && len(over.entries) > 0 {
			return fuse.Status(syscall.ENOTEMPTY)
		}
		f.rename(dir, old, to, name)
		return fuse.OK
	})
}

func (f *files) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (f *files) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	var got int
	status := f.in(in.NodeId, func(n *inode) fuse.Status {
		got = copy(buf, n.data[min(in.Offset, uint64(len(n.data))):])
		return fuse.OK
	})
	return fuse.ReadResultData(buf[:got]), status
}

func (f *files) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return uint32(len(data)), f.in(in.NodeId, func(n *inode) fuse.Status {
		f.write(n, int(in.Offset), data)
		return fuse.OK
	})
}

// Fallocate knows only how to make a file longer.
func (f *files) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return f.in(in.NodeId, func(n *inode) fuse.Status {
		if in.Mode != 0 {
			return fuse.ENOTSUP
		}
		f.resize(n, max(len(n.data), int(in.Offset+in.Length)))
		return fuse.OK
	})
}

func (f *files) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return f.in(in.NodeId, func(n *inode) fuse.Status {
		f.sync(n)
		return fuse.OK
	})
}

func (f *files) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return f.Fsync(cancel, in)
}

func (f *files) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// OpenDir lists a directory as it is then: names that come and go while it is
// read move no others.
func (f *files) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return f.in(in.NodeId, func(n *inode) fuse.Status {
		var list []fuse.DirEntry
		for _, name := range slices.Sorted(maps.Keys(n.entries)) {
			child := n.entries[name]
			list = append(list, fuse.DirEntry{Name: name, Mode: child.mode, Ino: child.id})
		}
		f.listMu.Lock()
		defer f.listMu.Unlock()
		f.lastList++
		out.Fh = f.lastList
		f.listings[out.Fh] = list
		return fuse.OK
	})
}

func (f *files) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	f.listMu.Lock()
	defer f.listMu.Unlock()
	list := f.listings[in.Fh]
	for _, e := range list[min(in.Offset, uint64(len(list))):] {
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (f *files) ReleaseDir(in *fuse.ReleaseIn) {
	f.listMu.Lock()
	defer f.listMu.Unlock()
	delete(f.listings, in.Fh)
}

// StatFs says that there is room: a node that lacks it refuses work.
func (f *files) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const blocks = 1 << 24 // of 4 KiB
	*out = fuse.StatfsOut{Blocks: blocks, Bfree: blocks, Bavail: blocks, Files: blocks, Ffree: blocks, Bsize: 4096, Frsize: 4096, NameLen: 255}
	return fuse.OK
}
