package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/boltfile"
)

// verifyLogFile verifies the pages and keys of raft.db before bbolt reads them. An
// empty or missing file is a new one.
func verifyLogFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	if err := awaitSharedLock(f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	buckets := make(map[string]bool)
	err = boltfile.Check(f, info.Size(), func(bucket, key, _ []byte) error {
		buckets[string(bucket)] = true
		return knownKey(string(bucket), string(key))
	})
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, filepath.Base(path), err)
	}
	return nil
}

// knownKey rejects keys that raft does not write, as after a bit flip in a key.
func knownKey(bucket, key string) error {
	switch bucket {
	case "logs":
		if len(key) == 8 {
			return nil
		}
	case "conf":
		if key == KeyCurrentTerm || key == keyVoteTerm || key == keyVote {
			return nil
		}
	}
	return fmt.Errorf("unknown key %q in %q", key, bucket)
}

// awaitSharedLock waits until no other process has the file open for writing. Closing
// the file releases the lock.
func awaitSharedLock(f *os.File) error {
	limit := time.NewTimer(lockWait)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := tryLockShared(f)
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return ErrInUse
		}
	}
}

// verifyLog reads every entry, and term and vote, and compares them with the tail. It
// returns the last index and the first index from which the log has no gap, which in
// an empty log is one beyond the last.
func verifyLog(logs raft.LogStore, stable raft.StableStore, t tailMark) (from, last uint64, err error) {
	first, err := logs.FirstIndex()
	if err != nil {
		return 0, 0, err
	}
	last, err = logs.LastIndex()
	if err != nil {
		return 0, 0, err
	}
	if last < t.Index {
		return 0, 0, fmt.Errorf("%w: the log ends at entry %d, but entry %d was written", ErrCorrupt, last, t.Index)
	}
	if err := verifyStable(stable, t); err != nil {
		return 0, 0, err
	}
	from = last + 1
	var term uint64
	for i := last; i >= first && i > 0; i-- {
		var l raft.Log
		err := logs.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			break
		}
		if err != nil {
			return 0, 0, err
		}
		if i == t.Index && l.Term != t.Term || i < last && l.Term > term {
			return 0, 0, fmt.Errorf("%w: log entry %d has term %d", ErrCorrupt, i, l.Term)
		}
		term, from = l.Term, i
	}
	return from, last, nil
}

func verifyStable(stable raft.StableStore, t tailMark) error {
	current, err := numberOrZero(stable, KeyCurrentTerm)
	if err != nil {
		return err
	}
	voted, err := numberOrZero(stable, keyVoteTerm)
	if err != nil {
		return err
	}
	vote, err := stable.Get([]byte(keyVote))
	if err != nil && (errors.Is(err, ErrCorrupt) || err.Error() != keyNotFound) {
		return err
	}
	switch {
	case current < t.CurrentTerm:
		return fmt.Errorf("%w: term %d was written, but the stored term is %d", ErrCorrupt, t.CurrentTerm, current)
	case voted < t.VoteTerm:
		return fmt.Errorf("%w: a vote in term %d was written, but the stored vote is of term %d", ErrCorrupt, t.VoteTerm, voted)
	case voted == t.VoteTerm && t.VoteHash != 0 && voteHash(vote) != t.VoteHash:
		return fmt.Errorf("%w: the vote in term %d is not the one that was written", ErrCorrupt, voted)
	}
	return nil
}

// keyNotFound is the text of raft's error for a missing key, which raft compares too.
const keyNotFound = "not found"

func numberOrZero(stable raft.StableStore, key string) (uint64, error) {
	n, err := stable.GetUint64([]byte(key))
	if err != nil && !errors.Is(err, ErrCorrupt) && err.Error() == keyNotFound {
		return 0, nil
	}
	return n, err
}
