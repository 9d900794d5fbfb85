package raftlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/boltfile"
)

// verifyLogFile checks the pages of the log's file before bbolt reads them,
// and the keys in it. An empty or missing file is a new one.
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

// knownKey refuses what raft does not write: a key that changed is another.
func knownKey(bucket, key string) error {
	switch bucket {
	case "logs":
		if len(key) == 8 {
			return nil
		}
	case "conf":
		if key == keyCurrentTerm || key == keyVoteTerm || key == keyVote {
			return nil
		}
	}
	return fmt.Errorf("unknown key %q in %q", key, bucket)
}

// awaitSharedLock waits until no other process writes the file. Closing the
// file gives the lock back.
func awaitSharedLock(f *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	for {
		ok, err := tryLockShared(f)
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ErrInUse
		}
	}
}

// verifyLog reads every entry, and term and vote, and compares the end of the
// log with what the tail remembers. It returns the last index and the one from
// which on the log has no gap, which in an empty log is one beyond the last.
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
		return 0, 0, fmt.Errorf("%w: the log ends at entry %d, and it reached entry %d", ErrCorrupt, last, t.Index)
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
	current, err := numberOrZero(stable, keyCurrentTerm)
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
		return fmt.Errorf("%w: term %d was written, and it says term %d", ErrCorrupt, t.CurrentTerm, current)
	case voted < t.VoteTerm:
		return fmt.Errorf("%w: a vote in term %d was written, and it knows of none after term %d", ErrCorrupt, t.VoteTerm, voted)
	case voted == t.VoteTerm && t.VoteHash != 0 && voteHash(vote) != t.VoteHash:
		return fmt.Errorf("%w: the vote in term %d is not the one that was written", ErrCorrupt, voted)
	}
	return nil
}

// keyNotFound is raft's contract with stable stores: it compares the text.
const keyNotFound = "not found"

func numberOrZero(stable raft.StableStore, key string) (uint64, error) {
	n, err := stable.GetUint64([]byte(key))
	if err != nil && !errors.Is(err, ErrCorrupt) && err.Error() == keyNotFound {
		return 0, nil
	}
	return n, err
}
