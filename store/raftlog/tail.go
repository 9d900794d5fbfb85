package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// tail remembers beside the log how far it reached, and which term and vote
// were written last. A log that was cut off, set back, or whose newest meta page
// is damaged so that bbolt goes back to the one before, opens without a
// complaint; the tail tells, and the node does not vote as if it had forgotten
// nothing.
//
// It is written after the log and without fsync, so it costs no time and is
// never ahead of the log: after a power cut it may be behind, or empty, and then
// it finds less. It outlives a crash of the process. Only before the end of the
// log is cut off on purpose is it written and synced first.
type tail struct {
	file *os.File

	mu sync.Mutex // guards the rest
	at tailMark
}

// tailMark is the content: last log entry with its term, raft's term, the term
// of the last vote and a hash of whom it went to (0: not written yet).
type tailMark struct {
	Index, Term, CurrentTerm, VoteTerm, VoteHash uint64
}

const (
	tailFile = "raft.tail"
	tailSize = 6 * 8
)

// openTail opens the file and reads what it says; a file that says nothing
// valid counts for the zero mark, which any log satisfies.
func openTail(dir string) (*tail, error) {
	f, err := os.OpenFile(filepath.Join(dir, tailFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w%s", tailFile, err, Advice(err))
	}
	t := &tail{file: f}
	buf := make([]byte, tailSize)
	if _, err := f.ReadAt(buf, 0); err == nil && xxhash.Sum64(buf[:tailSize-8]) == binary.LittleEndian.Uint64(buf[tailSize-8:]) {
		for i, p := range t.at.fields() {
			*p = binary.LittleEndian.Uint64(buf[8*i:])
		}
	}
	return t, nil
}

func (m *tailMark) fields() []*uint64 {
	return []*uint64{&m.Index, &m.Term, &m.CurrentTerm, &m.VoteTerm, &m.VoteHash}
}

func (t *tail) mark() tailMark {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at
}

// set changes the mark; synced waits for the disk. Raft's main loop is the only
// one that writes, so the order of the writes is that of the changes.
func (t *tail) set(change func(*tailMark), synced bool) error {
	if t == nil {
		return nil // a test without one
	}
	t.mu.Lock()
	change(&t.at)
	buf := make([]byte, 0, tailSize)
	for _, p := range t.at.fields() {
		buf = binary.LittleEndian.AppendUint64(buf, *p)
	}
	t.mu.Unlock()
	if _, err := t.file.WriteAt(binary.LittleEndian.AppendUint64(buf, xxhash.Sum64(buf)), 0); err != nil {
		return fmt.Errorf("write %s: %w", tailFile, err)
	}
	if synced {
		return t.file.Sync()
	}
	return nil
}

func (t *tail) close() error {
	if err := t.file.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
