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

// tail records, in a file beside the log, the last entry, term and vote. A log that was
// truncated or replaced by an older copy, or whose newest meta page is damaged so that
// bbolt uses the previous one, opens without an error. The tail detects it, and the
// node does not vote with lost votes.
//
// It is written after the log and without fsync, so it costs little and is never ahead
// of the log. It survives a crash of the process. After a power cut it may be behind or
// empty, and then it detects less. Only before a truncation of the log's end is it
// written first, and synced.
type tail struct {
	file *os.File // see set

	mu sync.Mutex // guards the rest
	at tailMark
}

// tailMark is the content: index and term of the last log entry, raft's term, the term
// of the last vote and a hash of its candidate (0: not written yet).
type tailMark struct {
	Index, Term, CurrentTerm, VoteTerm, VoteHash uint64
}

const (
	tailFile = "raft.tail"
	tailSize = 6 * 8
)

// openTail opens and reads the file. Without valid content the mark is zero, which any
// log satisfies.
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

// set changes the mark; synced waits for the disk. The file is written without the
// lock, so that mark does not wait for the disk. That is no race: raft's main loop is
// the only caller, so no two writes overlap and they keep the order of the changes.
func (t *tail) set(change func(*tailMark), synced bool) error {
	if t == nil {
		return nil // some tests have none
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
