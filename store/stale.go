package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store/raftlog"
)

// With Config.StaleOnStart, a restarted node that finds no leader answers from what it
// knows to be committed: its snapshot, and its log up to the last entry that it had
// applied before (see raftlog.Commits). How old that is nobody knows, so its lag is
// UnknownLag until it is ready. It applies these entries ahead of raft, which passes
// them again once there is a leader; they are skipped then, so its state never goes
// back.

// UnknownLag is the lag of a node that answers and has heard of no leader since its
// start: 100 years, longer than any limit that a reader sets.
const UnknownLag = 100 * 365 * 24 * time.Hour

const (
	// staleAfter × ElectionTimeout without a leader, and the node answers.
	staleAfter = 10
	// syncCommitsEvery is how much of the record a power cut may take.
	syncCommitsEvery = time.Second
	// replayBatch bounds the entries that are applied at once.
	replayBatch = 256
)

// openCommits opens the record of the last committed entry.
func (s *Store) openCommits(snaps *raftlog.Snapshots, logs raft.LogStore, w raftlog.Watchdog) error {
	if !s.cfg.StaleOnStart {
		return nil
	}
	commits, err := s.files.OpenCommits(s.incarnation, w, s.log)
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrDataDir, s.cfg.DataDir, err)
	}
	snapshot, _ := snaps.Newest()
	if err := commits.Check(logs, snapshot, s.log); err != nil {
		return fmt.Errorf("%w %s: %w", ErrDataDir, s.cfg.DataDir, err)
	}
	s.commits, s.fsm.committed = commits, commits.Note
	return nil
}

// Stale reports whether this node answers from what it knew at its start, having
// reached no majority since.
func (s *Store) Stale() bool { return s.stale.Load() && !s.IsReady() }

// staleLoop lets a node that finds no leader answer.
func (s *Store) staleLoop(ctx context.Context) {
	since := time.Now()
	for pause(ctx, s.cfg.ElectionTimeout/2) && !s.IsReady() {
		if leader, _ := s.Leader(); leader != "" {
			since = time.Now()
			continue
		}
		if time.Since(since) < staleAfter*s.cfg.ElectionTimeout {
			continue
		}
		err := s.answerStale()
		if err != nil && ctx.Err() == nil {
			s.log.Warn("no leader was found, and this node cannot answer from what it knew at its start", "error", err)
		}
		return
	}
}

var (
	errNothingKnown = errors.New("it knows of no committed entry")
	errTokensLater  = errors.New("tokens may have been turned on after the last entry that is known to be committed")
)

func (s *Store) answerStale() error {
	if err := s.fsm.replay(s.logs, s.commits.Last().Index); err != nil {
		return err
	}
	state := s.State()
	if state.Index() == 0 || s.ClusterID() == "" {
		return errNothingKnown
	}
	if later, err := s.tokensLater(state); later || err != nil {
		return errors.Join(errTokensLater, err)
	}
	s.stale.Store(true)
	s.integrity.wake(nil)
	s.log.Warn("no leader was found: this node answers from what it knew at its start, and how old that is is not known", "index", state.Index())
	return nil
}

// tokensLater reports whether the state has no tokens and a later entry may create
// some: without them the node would answer to everybody.
func (s *Store) tokensLater(state *fsm.State) (bool, error) {
	last, err := s.logs.LastIndex()
	if err != nil || state.TokensOn() {
		return false, err
	}
	for i := state.Index() + 1; i <= last; i++ {
		var l raft.Log
		if err := s.logs.GetLog(i, &l); err != nil {
			return false, err
		}
		if l.Type == raft.LogCommand && fsm.TurnsTokensOn(l.Data) {
			return true, nil
		}
	}
	return false, nil
}

// syncCommitsLoop syncs the record.
func (s *Store) syncCommitsLoop(ctx context.Context) {
	for pause(ctx, syncCommitsEvery) {
		s.commits.Sync()
	}
}

// replay applies the entries of the log up to one that is known to be committed, ahead
// of raft.
func (f *raftFSM) replay(logs raft.LogStore, to uint64) error {
	for {
		done, err := f.replaySome(logs, to)
		if done || err != nil {
			return err
		}
	}
}

func (f *raftFSM) replaySome(logs raft.LogStore, to uint64) (done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := max(f.handed, f.skip) + 1
	if from > to {
		return true, nil
	}
	if f.frozen || f.broken {
		return false, errNoSnapshotNow
	}
	to = min(to, from+replayBatch-1)
	var entries []fsm.Entry
	for i := from; i <= to; i++ {
		var l raft.Log
		if err := logs.GetLog(i, &l); err != nil {
			return false, fmt.Errorf("read log entry %d: %w", i, err)
		}
		if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			entries = append(entries, entryOf(&l))
		}
	}
	if len(entries) > 0 {
		if _, err := f.apply(entries); err != nil {
			f.broken = true
			f.fatal(err)
			return false, err
		}
	}
	f.skip = to
	return false, nil
}
