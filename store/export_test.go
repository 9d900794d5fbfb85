package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/raftlog"
)

// after lets virtual time pass.
func after(d time.Duration) { <-time.After(d) }

// After lets virtual time pass.
func After(d time.Duration) { after(d) }

// Announced reports whether the state has what this node says of itself.
func (s *Store) Announced() bool { return s.announced() }

// ConfirmTerm is a leadership check as if this node led in that term.
func (s *Store) ConfirmTerm(ctx context.Context, term uint64) error {
	_, err := s.checkLeadership(&leadership{term: term, ctx: ctx})
	return err
}

// Snapshot writes a snapshot and shortens the log, as the node does by itself
// after SnapshotThreshold entries.
func (s *Store) Snapshot() error { return s.raft.Snapshot().Error() }

// BreakLog makes every later write of the log fail.
func (s *Store) BreakLog() error { return s.files.Close() }

// Incarnation is the id of the data directory.
func (s *Store) Incarnation() string { return s.incarnation }

// WrapLog injects a fault into the log.
func WrapLog(cfg *Config, wrap func(raft.LogStore) raft.LogStore) { cfg.wrapLog = wrap }

// FailedCloseLimit bounds the Close of a node that failed.
const FailedCloseLimit = failedCloseLimit

// DiskFree sets the free disk space that a node sees.
func DiskFree(cfg *Config, free func() uint64) {
	cfg.diskFree = func(string) (uint64, error) { return free(), nil }
}

// RecordNode writes a node's metadata only.
func (s *Store) RecordNode(ctx context.Context, n Hello) error { return s.recordNode(ctx, n) }

// LockMembership holds changes of the configuration up until it is unlocked.
func (s *Store) LockMembership(ctx context.Context) (unlock func()) {
	if err := s.lockMembership(ctx); err != nil {
		panic(err)
	}
	return func() { s.membership.Release(1) }
}

// PendingExpiries is the number of leases whose expiry is proposed.
func (s *Store) PendingExpiries() int { return s.leases.Expiring() }

// Corrupt changes this node's state outside the log, as a hardware or software fault
// would.
func (s *Store) Corrupt(cmd *fsmpb.Command) error {
	data, err := fsm.Encode(cmd)
	if err != nil {
		return err
	}
	s.fsm.mu.Lock()
	defer s.fsm.mu.Unlock()
	at := s.State().Index()
	return s.machine.Apply([]fsm.Entry{{Index: at, Term: s.Term(), Data: data}})[0].Err
}

// Scrub verifies the state now, and waits until the finding was handled.
func (s *Store) Scrub() {
	done := make(chan struct{})
	s.integrity.scrubNow <- done
	<-done
}

// MaxReinstalls is how many reinstallations within an hour a node survives.
const MaxReinstalls = maxReinstalls

// DamageEntry changes the term of an entry on disk, not in the cache.
func (s *Store) DamageEntry(index uint64) error {
	if s.ident.Load().logKind() == raftlog.WAL {
		return s.damageSegments(index)
	}
	var l raft.Log
	if err := s.files.Unchecked().GetLog(index, &l); err != nil {
		return err
	}
	l.Term++
	return s.files.Unchecked().StoreLog(&l)
}

func (s *Store) damageSegments(index uint64) error {
	var l raft.Log
	if err := s.files.Unchecked().GetLog(index, &l); err != nil {
		return err
	}
	var entry bytes.Buffer
	if err := (&wal.BinaryCodec{}).Encode(&l, &entry); err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(s.cfg.DataDir, "wal", "*.wal"))
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(data, entry.Bytes())
		if at < 0 {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		term := at + len(binary.AppendUvarint(nil, index))
		_, err = f.WriteAt([]byte{data[term] + 1}, int64(term))
		return errors.Join(err, f.Close())
	}
	return errors.Join(fmt.Errorf("entry %d is in no segment", index), err)
}

// SegmentSize sets the size of a segment of the log.
func SegmentSize(cfg *Config, bytes int) { cfg.segmentSize = bytes }

// LogRange is the first and the last index of the log.
func (s *Store) LogRange() (first, last uint64) {
	first, _ = s.files.Entries().FirstIndex() // 0 on an error
	last, _ = s.files.Entries().LastIndex()
	return first, last
}

// ForeignCall is what a raft call from another cluster does.
func (s *Store) ForeignCall(cluster string) { s.foreignCall(cluster) }

// MigrateLogSteps is MigrateLog with a function that is called after each step.
func MigrateLogSteps(dir, to string, segmentSize int, step func(what string)) (LogMove, error) {
	return migration{dir: dir, to: to, log: slog.New(slog.DiscardHandler), segmentSize: segmentSize, batch: 20, step: step}.run()
}

// IdleLimit is how long a raft connection may be silent.
func IdleLimit(cfg *Config, limit time.Duration) { cfg.idleLimit = limit }

// RaftLogger is the logger of raft.
func RaftLogger(out *slog.Logger) hclog.Logger { return newRaftLogger(out) }

// ProposeAsync proposes a command so many times, without waiting.
func (s *Store) ProposeAsync(times int, cmd *fsmpb.Command) error {
	data, err := fsm.Encode(cmd)
	for range times {
		s.raft.Apply(data, 0)
	}
	return err
}

// SnapshotLoop is how many snapshots without an entry are an alarm.
const SnapshotLoop = snapshotLoop

// GotSnapshot simulates an installed snapshot.
func (s *Store) GotSnapshot(index uint64) { s.gotSnapshot(index) }

// SetFormat changes the format in a directory's node.json.
func SetFormat(dir string, format int) error {
	ident, err := storedIdentity(dir)
	if err != nil {
		return err
	}
	ident.Format = format
	return ident.save(dir)
}

// ForgetCluster takes the cluster out of a directory's node.json.
func ForgetCluster(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		return err
	}
	have, ok := parseIdentity(data)
	if !ok {
		return errors.New("node.json is damaged")
	}
	have.ClusterID, have.Founders = "", nil
	return have.save(dir)
}

// StageOnly begins a restoration and leaves it there.
func (s *Store) StageOnly(ctx context.Context, state *fsm.State) error {
	l, err := s.leading(ctx)
	if err != nil {
		return err
	}
	begun, err := s.proposeIn(ctx, l, &fsmpb.Command{Op: &fsmpb.Command_RestoreBegin{RestoreBegin: &fsmpb.RestoreBegin{}}})
	if err != nil {
		return err
	}
	return s.stage(ctx, l, begun.Index, state)
}

// RecoverSteps is a recovery with a function that is called after each step.
func RecoverSteps(dir string, segmentSize int, step func(what string)) (Survivor, string, error) {
	r, err := openRecovery(dir, slog.New(slog.DiscardHandler), segmentSize)
	if err != nil {
		return Survivor{}, "", err
	}
	r.step = step
	id, err := r.Run()
	return r.Survivor, id, errors.Join(err, r.Close())
}

// RecoveryGap is how far a recovery goes beyond the log.
const RecoveryGap = recoveryGap

// DeleteEmpty deletes the groups that are empty in a state, as the leader does when it is
// time.
func (s *Store) DeleteEmpty(ctx context.Context, state *fsm.State) error {
	_, due := emptyGroups{}.next(state, time.Now(), 0)
	return s.deleteEmpty(ctx, due)
}

// BeforeApply is called with the last of the committed entries that this node is about to
// apply.
func (s *Store) BeforeApply(f func(index uint64)) {
	s.fsm.mu.Lock()
	defer s.fsm.mu.Unlock()
	s.fsm.committed = func(index, _ uint64) { f(index) }
}

// Entry is an entry of the log.
func (s *Store) Entry(index uint64) (raft.Log, error) {
	var l raft.Log
	err := s.logs.GetLog(index, &l)
	return l, err
}
