package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/backup"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// About is the header of a snapshot file that this node writes.
func (s *Store) About() *fsmpb.BackupHeader {
	return &fsmpb.BackupHeader{
		Cluster: s.cfg.Cluster, ClusterId: s.ClusterID(), Node: s.cfg.ID, NodeVersion: s.cfg.Version, TimeMs: time.Now().UnixMilli(),
	}
}

// Restored is the result of Restore.
type Restored struct {
	Index      uint64 // of the restored state
	LeasesKept bool   // the file is of this cluster
}

// Restore replaces groups, members and tokens by those of a file, on the leader. The
// parts of the file are staged by log entries without a visible effect; the entry after
// them replaces the state at one index on all nodes. If that entry is not written, the
// next leader's first entry drops the parts.
//
// ctx bounds all but the last entry, whose outcome is awaited for endTimeout: a change
// of the tokens may end the call that asked for the restoration.
func (s *Store) Restore(ctx context.Context, file *backup.File) (Restored, error) {
	l, err := s.leading(ctx)
	if err != nil {
		return Restored{}, err
	}
	if !s.restoring.TryLock() {
		return Restored{}, fmt.Errorf("%w: it restores another snapshot", ErrBusy)
	}
	defer s.restoring.Unlock()
	begin := &fsmpb.Command{Op: &fsmpb.Command_RestoreBegin{RestoreBegin: &fsmpb.RestoreBegin{}}}
	if err := s.allow(ctx, begin); err != nil {
		return Restored{}, err
	}
	if err := s.mayRestore(file); err != nil {
		return Restored{}, err
	}
	state := s.State()
	out := Restored{LeasesKept: file.Header.ClusterId == s.ClusterID() && file.Header.Index <= state.Index()}
	s.log.Info("restoring a snapshot", "from_cluster_id", file.Header.ClusterId, "from_index", file.Header.Index, "members", file.Header.Members)
	begun, err := s.proposeIn(ctx, l, begin)
	if err != nil {
		return Restored{}, err
	}
	end := &fsmpb.RestoreEnd{Id: begun.Index, Digest: file.State.Digest(), SameLog: out.LeasesKept}
	failed := s.stage(ctx, l, begun.Index, file.State)
	end.Discard = failed != nil
	limit := endTimeout
	if end.Discard {
		limit = enqueueTimeout // if it is not written, the next leader drops the parts
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	result, err := s.proposeIn(last, l, &fsmpb.Command{Op: &fsmpb.Command_RestoreEnd{RestoreEnd: end}})
	switch {
	case failed != nil:
		return Restored{}, failed
	case errors.Is(err, fsm.ErrNoRestore):
		return Restored{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
	case err != nil:
		return Restored{}, err
	}
	out.Index = result.Index
	s.log.Warn("a snapshot was restored", "index", out.Index, "from_index", file.Header.Index, "leases_kept", out.LeasesKept)
	return out, nil
}

// endTimeout is long, because the entry replaces the state of up to two million members.
const endTimeout = 2 * time.Minute

func (s *Store) mayRestore(file *backup.File) error {
	if file.Size > fsm.MaxRestore {
		return &fsm.FieldError{Field: "data", Limit: fmt.Sprintf("a file of at most %d bytes; a larger one restores with -restore of a new cluster", fsm.MaxRestore), Got: fmt.Sprint(file.Size)}
	}
	return errors.Join(s.State().CheckRestore(file.State), s.roomForFile(file.Size))
}

// diskPerByte is what a byte of a restored file takes: in the log, and in the two
// snapshots that are kept.
const diskPerByte = 3

// roomForFile refuses a file that would fill this node's disk, and any while disks are
// low.
func (s *Store) roomForFile(size int64) error {
	if s.cfg.MinFreeDisk == 0 {
		return nil
	}
	mark := s.cfg.MinFreeDisk + diskPerByte*uint64(size)
	if free, err := s.cfg.diskFree(s.cfg.DataDir); err == nil && free < mark {
		return &DiskLowError{Nodes: []string{s.cfg.ID}, Free: free, Mark: mark}
	}
	return s.roomFor(&fsmpb.Command{Op: &fsmpb.Command_RestoreBegin{}})
}

// proposeIn commits a command in a leadership, and in no later one.
func (s *Store) proposeIn(ctx context.Context, l *leadership, cmd *fsmpb.Command) (fsm.Result, error) {
	p, err := newProposal(cmd)
	if err != nil {
		return fsm.Result{}, err
	}
	p.lead = l
	if err := s.enqueue(ctx, p); err != nil {
		return fsm.Result{}, err
	}
	return s.outcomeOf(ctx, p)
}

// stage commits the records of a state in parts.
func (s *Store) stage(ctx context.Context, l *leadership, id uint64, state *fsm.State) error {
	w := &stager{store: s, ctx: ctx, lead: l, id: id}
	out := bufio.NewWriterSize(w, fsm.MaxRestorePart)
	if err := state.WithoutStaged().WriteSnapshot(out); err != nil {
		return errors.Join(w.wait(0), err)
	}
	return errors.Join(out.Flush(), w.wait(0))
}

// stager proposes parts in their order, some at a time.
type stager struct {
	store  *Store
	ctx    context.Context
	lead   *leadership
	id     uint64
	number uint64
	sent   []*proposal // that are not awaited yet
}

// maxSent bounds the parts in flight, so that a restoration does not fill the queue that
// other writes wait in.
const maxSent = 4

func (w *stager) Write(b []byte) (int, error) {
	for n := 0; n < len(b); n += fsm.MaxRestorePart {
		if err := w.part(b[n:min(n+fsm.MaxRestorePart, len(b))]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

func (w *stager) part(data []byte) error {
	if err := w.wait(maxSent - 1); err != nil {
		return err
	}
	p, err := newProposal(&fsmpb.Command{Op: &fsmpb.Command_RestorePart{RestorePart: &fsmpb.RestorePart{Id: w.id, Number: w.number, Data: data}}})
	if err != nil {
		return err
	}
	p.lead = w.lead
	if err := w.store.enqueue(w.ctx, p); err != nil {
		return err
	}
	w.number++
	w.sent = append(w.sent, p)
	return nil
}

// wait waits until at most that many parts are in flight. Its errors say that nothing
// was restored, whatever became of the parts.
func (w *stager) wait(most int) error {
	for len(w.sent) > most {
		p := w.sent[0]
		w.sent = w.sent[1:]
		_, err := w.store.outcomeOf(w.ctx, p)
		if err != nil {
			return fmt.Errorf("%w: nothing was restored: %v", ErrNotLeader, err) // not wrapped: its outcome does not matter
		}
	}
	return nil
}
