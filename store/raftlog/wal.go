package raftlog

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/werbenhu/registry/store/walfile"
)

const (
	// walDir has the segments of the log and their list.
	walDir = "wal"
	// walList is raft-wal's metadata. By default it is a bbolt file, which has no checksum
	// of its values and panics when it is damaged.
	walList = "segments.json"
	// walSegmentSize bounds the entries that stay on disk although a snapshot covers
	// them, because segments are removed as a whole.
	walSegmentSize = 16 << 20
)

// walLog is a log in segments, by hashicorp/raft-wal.
type walLog struct {
	raft.LogStore
	log    *wal.WAL
	filer  *segmentFiler
	list   *segmentList
	writes atomic.Uint64
	took   atomic.Int64 // nanoseconds of all writes
}

// openWAL opens or creates the log. The mark is the last entry that was written. Damage
// is an [ErrCorrupt]; then no file is changed.
func openWAL(dir string, mark tailMark, logger hclog.Logger, segmentSize int) (l *walLog, err error) {
	dir = filepath.Join(dir, walDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// Also the entry of a segment that a killed process created and did not sync:
	// raft-wal syncs the directory only for segments that it has created since its start.
	if err := errors.Join(SyncDir(filepath.Dir(dir)), SyncDir(dir)); err != nil {
		return nil, err
	}
	l = &walLog{filer: &segmentFiler{Filer: segment.NewFiler(dir, walfs.New()), dir: dir}, list: &segmentList{dir: dir}}
	if err := l.prepare(dir, mark, logger); err != nil {
		return nil, err
	}
	err = guardPanic(func() error {
		l.log, err = wal.Open(dir, wal.WithMetaStore(l.list), wal.WithSegmentFiler(l.filer), wal.WithLogger(logger), wal.WithSegmentSize(cmp.Or(segmentSize, walSegmentSize)))
		return err
	})
	if errors.Is(err, types.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, walDir, err)
	}
	l.LogStore = l.log
	return l, err
}

// prepare verifies what raft-wal does not, and clears an unfinished write at the end.
func (l *walLog) prepare(dir string, mark tailMark, logger hclog.Logger) error {
	if err := l.list.removeUnfinished(); err != nil {
		return err
	}
	state, err := l.list.Load(dir)
	if err != nil {
		return err
	}
	found, err := l.filer.List()
	if err != nil {
		return fmt.Errorf("%w: %s: a file that is no segment: %w", ErrCorrupt, walDir, err)
	}
	for id, base := range found {
		if id >= state.NextSegmentID { // raft-wal would remove it
			return fmt.Errorf("%w: %s: the list of segments is older than segment %d, which begins with entry %d", ErrCorrupt, walList, id, base)
		}
	}
	if n := len(state.Segments); n > 0 && state.Segments[n-1].SealTime.IsZero() {
		return l.prepareTail(dir, state, mark, logger)
	}
	return nil
}

func (l *walLog) prepareTail(dir string, state types.PersistentState, mark tailMark, logger hclog.Logger) error {
	info := state.Segments[len(state.Segments)-1]
	name := segment.FileName(info)
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if mark.Index >= info.BaseIndex { // raft-wal would create an empty one
			return fmt.Errorf("%w: %s is missing, but entry %d was written", ErrCorrupt, name, mark.Index)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // writes to it are synced
	size, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	found, err := walfile.Walk(f, size, walfile.ID{Base: info.BaseIndex, Segment: info.ID, Codec: info.Codec})
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	last := info.BaseIndex + found.Entries - 1
	if mark.Index > last {
		return fmt.Errorf("%w: %s ends before entry %d, but entry %d was written", ErrCorrupt, name, last+1, mark.Index)
	}
	if found.Index == 0 { // not sealed: a sealed one may be longer than its limit
		if cleared, err := clearFrom(f, found.End, size); err != nil {
			return err
		} else if cleared > 0 {
			logger.Info("removed an unfinished write from the end of the log", "file", name, "last_entry", last)
		}
	}
	// Sync a batch that a killed process wrote and did not sync.
	if err := f.Sync(); err != nil || found.Index == 0 {
		return err
	}
	return l.finishSeal(state, found, last)
}

// clearFrom overwrites uncommitted data with zeros. Otherwise its frames could follow
// later ones, or seal the segment.
func clearFrom(f *os.File, at, size int64) (cleared int64, err error) {
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for at < size {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if n == 0 {
			return cleared, err
		}
		if string(buf[:n]) != string(zeros[:n]) {
			if _, err := f.WriteAt(zeros[:n], at); err != nil {
				return cleared, err
			}
			cleared += int64(n)
		}
		at += int64(n)
	}
	return cleared, nil
}

// finishSeal completes the seal of a segment if the process ended after the last write
// to it and before the next segment. raft-wal itself would refuse all writes.
func (l *walLog) finishSeal(state types.PersistentState, found walfile.Tail, last uint64) error {
	tail := &state.Segments[len(state.Segments)-1]
	tail.SealTime, tail.MaxIndex, tail.IndexStart = time.Now(), last, uint64(found.Index)
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1, SizeLimit: tail.SizeLimit, Codec: tail.Codec, CreateTime: time.Now(),
	}
	state.Segments, state.NextSegmentID = append(state.Segments, next), state.NextSegmentID+1
	return l.list.CommitState(state)
}

// GetLog hides entries before the first index: raft-wal still returns entries that were
// removed from the front of its tail segment, until the next start.
func (l *walLog) GetLog(index uint64, entry *raft.Log) error {
	if first, err := l.log.FirstIndex(); err != nil || index < first {
		return cmp.Or(err, raft.ErrLogNotFound)
	}
	return l.log.GetLog(index, entry)
}

func (l *walLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l *walLog) StoreLogs(logs []*raft.Log) error {
	return l.write(func() error { return l.log.StoreLogs(logs) })
}

func (l *walLog) DeleteRange(low, high uint64) error {
	return l.write(func() error { return l.log.DeleteRange(low, high) })
}

// write measures a write, and adds the cause to a refusal: raft-wal creates the next
// segment in the background and only logs a failure.
func (l *walLog) write(do func() error) error {
	start := time.Now()
	err := do()
	l.writes.Add(1)
	l.took.Add(int64(time.Since(start)))
	if errors.Is(err, types.ErrSealed) {
		return fmt.Errorf("no new segment: %w", errors.Join(l.filer.failed.get(), l.list.failed.get(), err))
	}
	return err
}

func (l *walLog) close() error { return l.log.Close() }

// keptError is the last error of raft-wal's background work.
type keptError struct{ last atomic.Pointer[error] }

func (k *keptError) keep(err error) error {
	if err != nil {
		k.last.Store(&err)
	}
	return err
}

func (k *keptError) get() error {
	if err := k.last.Load(); err != nil {
		return *err
	}
	return nil
}

// segmentFiler creates, opens and removes segments, and keeps the error of a failed creation.
type segmentFiler struct {
	*segment.Filer
	dir    string
	failed keptError
	create func() error // for tests: a fault before a segment is created
}

func (f *segmentFiler) Create(info types.SegmentInfo) (w types.SegmentWriter, err error) {
	if f.create != nil {
		if err := f.create(); err != nil {
			return nil, f.failed.keep(err)
		}
	}
	if w, err = f.Filer.Create(info); err != nil {
		return w, f.failed.keep(err)
	}
	_, _ = MakePrivate(filepath.Join(f.dir, segment.FileName(info))) // raft-wal's is 0644; see there
	return w, nil
}

// segmentList stores the list of segments. It is raft-wal's MetaStore.
type segmentList struct {
	dir    string
	failed keptError
}

var _ types.MetaStore = (*segmentList)(nil)

// summedList is the content of the file.
type summedList struct {
	types.PersistentState
	Sum string `json:"sum"` // of the rest
}

func (s summedList) checksum() (string, error) {
	data, err := json.Marshal(s.PersistentState)
	return strconv.FormatUint(xxhash.Sum64(data), 16), err
}

// Load returns an empty state when there is no list.
func (s *segmentList) Load(string) (types.PersistentState, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, walList))
	if errors.Is(err, fs.ErrNotExist) {
		return types.PersistentState{}, nil
	}
	if err != nil {
		return types.PersistentState{}, err
	}
	var list summedList
	bad := json.Unmarshal(data, &list)
	if sum, err := list.checksum(); bad != nil || err != nil || sum != list.Sum {
		return types.PersistentState{}, fmt.Errorf("%w: %s does not match its checksum", ErrCorrupt, walList)
	}
	return list.PersistentState, nil
}

// CommitState replaces the list.
func (s *segmentList) CommitState(state types.PersistentState) error {
	list := summedList{PersistentState: state}
	var err error
	if list.Sum, err = list.checksum(); err != nil {
		return s.failed.keep(err)
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return s.failed.keep(err)
	}
	return s.failed.keep(WriteFile(filepath.Join(s.dir, walList), append(data, '\n')))
}

func (s *segmentList) removeUnfinished() error {
	left, err := filepath.Glob(filepath.Join(s.dir, walList+".tmp*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// Term and vote are in raft.db.
func (s *segmentList) GetStable([]byte) ([]byte, error) { return nil, errors.ErrUnsupported }
func (s *segmentList) SetStable(_, _ []byte) error      { return errors.ErrUnsupported }
func (s *segmentList) Close() error                     { return nil }
