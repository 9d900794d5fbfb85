package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"
)

// Commits records, in the file raft.commit beside the log, index and term of the last
// entry that the node applied. By log matching, a log that has this entry has every
// committed entry before it and no other, so the record may be behind the log or from
// before a truncation of its end, and is still true.
//
// The file has two slots, which are written in turn, so that a torn write leaves the
// other one. Each has a checksum that covers the owner, too.
type Commits struct {
	Watchdog
	file  *os.File
	owner uint64
	slot  int64       // to write next; of the caller of Note
	dirty atomic.Bool // written and not synced

	mu   sync.Mutex // guards last
	last CommitMark
}

// CommitMark names a committed entry; zero: none is known.
type CommitMark struct{ Index, Term uint64 }

// CommitFile is the name of the record in a data directory.
const CommitFile = "raft.commit"

const (
	commitSlot  = 512 // bytes between the slots: they are never in one sector
	commitSlots = 2
	commitSize  = 3 * 8 // index, term, checksum
)

// OpenCommits opens the record of the data directory's owner, and creates it if there is
// none. Without valid content nothing is known.
func (f *Files) OpenCommits(owner string, w Watchdog, log *slog.Logger) (_ *Commits, err error) {
	path := filepath.Join(f.dir, CommitFile)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w%s", CommitFile, err, Advice(err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	c := &Commits{Watchdog: w, file: file, owner: xxhash.Sum64String(owner)}
	data := make([]byte, commitSlots*commitSlot)
	if info, err := file.Stat(); err != nil || info.Size() < int64(len(data)) {
		if _, werr := file.WriteAt(data, 0); err != nil || werr != nil {
			return nil, fmt.Errorf("write %s: %w%s", CommitFile, errors.Join(err, werr), Advice(werr))
		}
		if err := errors.Join(file.Sync(), SyncDir(f.dir)); err != nil {
			return nil, fmt.Errorf("sync %s: %w", CommitFile, err)
		}
	} else if _, err := file.ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", CommitFile, err)
	}
	for i := range int64(commitSlots) {
		slot := data[i*commitSlot:][:commitSize]
		m, ok := c.decode(slot)
		switch {
		case ok && m.Index > c.last.Index:
			c.last, c.slot = m, (i+1)%commitSlots
		case !ok && [commitSize]byte(slot) != [commitSize]byte{}:
			log.Warn("the record of the last committed entry is damaged or another node's", "file", path, "slot", i)
		}
	}
	f.commits = c
	return c, nil
}

func (c *Commits) encode(m CommitMark) []byte {
	buf := binary.LittleEndian.AppendUint64(make([]byte, 0, commitSize), m.Index)
	buf = binary.LittleEndian.AppendUint64(buf, m.Term)
	return binary.LittleEndian.AppendUint64(buf, c.sum(buf))
}

func (c *Commits) decode(slot []byte) (CommitMark, bool) {
	fields := slot[:commitSize-8]
	return CommitMark{binary.LittleEndian.Uint64(fields), binary.LittleEndian.Uint64(fields[8:])},
		binary.LittleEndian.Uint64(slot[commitSize-8:]) == c.sum(fields)
}

func (c *Commits) sum(fields []byte) uint64 {
	return xxhash.Sum64(binary.LittleEndian.AppendUint64(append([]byte(nil), fields...), c.owner))
}

// Last is the last committed entry that is known.
func (c *Commits) Last() CommitMark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Check forgets the record unless the log has its entry, or a snapshot covers it: then
// the log is another one. It is called before Note.
func (c *Commits) Check(logs raft.LogStore, snapshot uint64, log *slog.Logger) error {
	m := c.Last()
	if m.Index <= snapshot {
		return nil
	}
	var l raft.Log
	err := logs.GetLog(m.Index, &l)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	if err != nil || l.Term != m.Term {
		log.Warn("the record of the last committed entry does not match the log and is not used", "index", m.Index, "term", m.Term)
		c.set(CommitMark{})
	}
	return nil
}

func (c *Commits) set(m CommitMark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = m
}

// Note records an entry that is about to be applied, unless a later one is recorded. It
// survives a crash of the process at once, and a power cut after the next Sync. One
// goroutine calls it. A write that fails or hangs ends the node.
func (c *Commits) Note(index, term uint64) {
	if index <= c.Last().Index {
		return // the log is replayed
	}
	m := CommitMark{index, term}
	err := c.run("write "+CommitFile, func() error {
		_, err := c.file.WriteAt(c.encode(m), c.slot*commitSlot)
		return err
	})
	if err != nil {
		return // the node ends
	}
	c.slot = (c.slot + 1) % commitSlots
	c.set(m)
	c.dirty.Store(true)
}

// Sync makes the record survive a power cut. A sync that fails or hangs ends the node.
func (c *Commits) Sync() {
	if c.dirty.Swap(false) {
		_ = c.run("sync "+CommitFile, c.file.Sync) // the node ends
	}
}

func (c *Commits) close() error {
	var err error
	if c.dirty.Swap(false) {
		err = c.file.Sync()
	}
	if err = errors.Join(err, c.file.Close()); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
