package raftlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
)

const (
	// KeptSnapshots is how many raft keeps; the log reaches back to the oldest.
	KeptSnapshots = 2
	// damagedDir is where damaged snapshots are moved, for inspection: raft would still
	// offer them to other nodes.
	damagedDir = "damaged-snapshots"

	// SnapshotDir holds the snapshots, in a data directory.
	SnapshotDir = "snapshots"

	snapshotMeta       = "meta.json" // raft's
	snapshotUnfinished = ".tmp"      // the end of a directory's name until the snapshot is closed; raft's
	// snapshotSum is the checksum of raft's meta.json, which has the snapshot's index and
	// term and the cluster's configuration, and no checksum of its own.
	snapshotSum = "meta.sum"
)

// Snapshots adds a checksum to the metadata of raft's snapshots.
type Snapshots struct {
	raft.SnapshotStore
	data string // the data directory
}

// OpenSnapshots opens the snapshots of a data directory.
func OpenSnapshots(dir string, logger hclog.Logger) (*Snapshots, error) {
	if err := os.MkdirAll(filepath.Join(dir, SnapshotDir), 0o700); err != nil { // raft's is 0755
		return nil, err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, KeptSnapshots, logger)
	return &Snapshots{files, dir}, err
}

func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.data, SnapshotDir, sink.ID())
	_, _ = MakePrivate(dir + snapshotUnfinished) // raft's is 0755, and its files 0644; see there
	return &summedSink{SnapshotSink: sink, dir: dir}, nil
}

type summedSink struct {
	raft.SnapshotSink
	dir      string
	once     sync.Once
	closeErr error
}

// Close finishes the snapshot and adds the checksum. After a crash in between, a snapshot
// without it is still used if its index and term match its name.
func (s *summedSink) Close() error {
	s.once.Do(func() {
		if s.closeErr = s.SnapshotSink.Close(); s.closeErr != nil {
			return
		}
		if meta, err := os.ReadFile(filepath.Join(s.dir, snapshotMeta)); err == nil {
			_ = WriteFile(filepath.Join(s.dir, snapshotSum), []byte(metaSum(meta))) // see above
		}
	})
	return s.closeErr
}

func metaSum(meta []byte) string { return strconv.FormatUint(xxhash.Sum64(meta), 16) }

// Found is the result of [Snapshots.Check].
type Found struct {
	intact  uint64 // index of the newest intact snapshot; 0: none
	damaged []error
	covered uint64 // the last index that a damaged snapshot covered
}

// Check reads the snapshots, the newest first, until one is intact, and moves damaged
// ones to a directory of their own.
func (s *Snapshots) Check(log *slog.Logger) (found Found, err error) {
	if err := found.checkMetas(s.data, log); err != nil {
		return found, err
	}
	list, err := s.List()
	if err != nil {
		return found, err
	}
	for _, meta := range list {
		bad := s.readWhole(meta)
		if bad == nil {
			found.intact = meta.Index
			return found, nil
		}
		if err := found.setAside(s.data, meta.ID, bad, log); err != nil {
			return found, err
		}
	}
	return found, nil
}

// checkMetas finds snapshots with damaged metadata, which raft would skip silently.
func (f *Found) checkMetas(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(filepath.Join(dir, SnapshotDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := snapshotIndex(e.Name()); !e.IsDir() || !ok {
			continue // unfinished, or not a snapshot, as lost+found
		}
		if bad := checkSnapshotMeta(filepath.Join(dir, SnapshotDir, e.Name())); bad != nil {
			if err := f.setAside(dir, e.Name(), bad, log); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkSnapshotMeta(path string) error {
	meta, err := os.ReadFile(filepath.Join(path, snapshotMeta))
	if err != nil {
		return err
	}
	var stored struct{ Index, Term uint64 }
	if err := json.Unmarshal(meta, &stored); err != nil {
		return fmt.Errorf("%s is no JSON: %w", snapshotMeta, err)
	}
	// The name has both too. After a crash between the two files there is nothing else
	// to compare with.
	if name := filepath.Base(path); !strings.HasPrefix(name, fmt.Sprintf("%d-%d-", stored.Term, stored.Index)) {
		return fmt.Errorf("%s has term %d and index %d, but the snapshot is named %s", snapshotMeta, stored.Term, stored.Index, name)
	}
	sum, err := os.ReadFile(filepath.Join(path, snapshotSum))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a crash before it was written
	}
	if err == nil && string(sum) != metaSum(meta) {
		err = fmt.Errorf("%s does not match its checksum", snapshotMeta)
	}
	return err
}

// readWhole reads and verifies a snapshot.
func (s *Snapshots) readWhole(meta *raft.SnapshotMeta) error {
	_, r, err := s.Open(meta.ID)
	if err != nil {
		return err
	}
	_, err = fsm.ReadSnapshot(r)
	return errors.Join(err, r.Close())
}

// snapshotIndex parses raft's names, term-index-milliseconds.
func snapshotIndex(id string) (index uint64, ok bool) {
	parts := strings.Split(id, "-")
	var numbers [3]uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 64)
		if len(parts) != len(numbers) || err != nil {
			return 0, false
		}
		numbers[i] = n
	}
	return numbers[1], true
}

// setAside moves a damaged snapshot to damagedDir.
func (f *Found) setAside(dir, id string, cause error, log *slog.Logger) error {
	f.damaged = append(f.damaged, fmt.Errorf("snapshot %s: %w", id, cause))
	index, ok := snapshotIndex(id)
	if !ok {
		index = math.MaxUint64 // unknown
	}
	f.covered = max(f.covered, index)
	to := filepath.Join(dir, damagedDir)
	log.Error("a snapshot is damaged; it is set aside", "snapshot", id, "to", to, "error", cause)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	to = filepath.Join(to, id)
	if err := errors.Join(os.RemoveAll(to), os.Rename(filepath.Join(dir, SnapshotDir, id), to)); err != nil {
		return err
	}
	return nil
}

// Oldest is the index of the oldest snapshot.
func (s *Snapshots) Oldest() (index uint64, ok bool) {
	list, err := s.List()
	if err != nil || len(list) == 0 {
		return 0, false
	}
	return list[len(list)-1].Index, true
}

// Newest is the index of the newest snapshot.
func (s *Snapshots) Newest() (index uint64, ok bool) {
	list, err := s.List()
	if err != nil || len(list) == 0 {
		return 0, false
	}
	return list[0].Index, true
}

// VerifyBase checks that the log, which has no gap between from and last, continues the
// newest intact snapshot and has all entries that damaged ones covered beyond it. Older
// damaged ones are no loss: a snapshot whose removal was interrupted looks like that.
func (f Found) VerifyBase(from, last uint64, log *slog.Logger) error {
	lost := f.covered > f.intact
	switch {
	case lost && (from > f.intact+1 || last < f.covered):
		return fmt.Errorf("%w: %w, and the log (entries %d to %d) and the other snapshots do not have all of it",
			ErrCorrupt, errors.Join(f.damaged...), from, last)
	case from > f.intact+1 && last > f.intact:
		return fmt.Errorf("%w: log entry %d is missing", ErrCorrupt, from-1)
	case len(f.damaged) > 0:
		log.Warn("starting without the damaged snapshot", "snapshot_index", f.intact, "log_first", from, "log_last", last)
	}
	return nil
}
