//go:build linux

package disk

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount is a disk in a directory.
type Mount struct {
	disk   *Disk
	dir    string
	server *fuse.Server
}

// Mount makes the directory, unless it exists, and the disk its content.
func (d *Disk) Mount(dir string) (*Mount, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	m := &Mount{disk: d, dir: dir}
	return m, m.mount()
}

func (m *Mount) mount() error {
	server, err := fuse.NewServer(newFiles(m.disk), m.dir, &fuse.MountOptions{
		Name: "registry-faults", FsName: "registry-faults", DirectMountStrict: true, DisableXAttrs: true, DisableReadDirPlus: true,
	})
	if err != nil {
		return fmt.Errorf("mount a disk in %s: %w", m.dir, err)
	}
	go server.Serve()
	m.server = server
	return server.WaitMount()
}

// CutPower has the disk forget what was not synced, or most of it. The process
// that used it has ended. It says what was kept.
func (m *Mount) CutPower(r *rand.Rand) (kept string, err error) {
	if err := m.Close(); err != nil { // with it goes what the kernel has cached
		return "", err
	}
	kept = m.disk.cut(r)
	return kept, m.mount()
}

// Wipe makes the disk an empty one.
func (m *Mount) Wipe() error {
	if err := m.Close(); err != nil {
		return err
	}
	m.disk = New(m.disk.forgets)
	return m.mount()
}

// Names are the files of a directory of the disk. It asks no kernel: a process
// that forks must not wait for itself.
func (m *Mount) Names(dir string) []string {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	n := m.disk.root.entries[dir]
	if n == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(n.entries))
}

// Close takes the disk out of the directory.
func (m *Mount) Close() error {
	if err := m.server.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	m.server.Wait()
	return nil
}

// Usable says why there can be no mounts here; nil: there can.
func Usable() error {
	dir, err := os.MkdirTemp("", "registry-faults-disk-")
	if err != nil {
		return err
	}
	m, err := New("").Mount(dir)
	if err == nil {
		err = m.Close()
	}
	return errors.Join(err, os.Remove(dir))
}
