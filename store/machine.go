package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
)

// raftFSM shows the state machine to raft. It takes batches, because a batch
// also holds the cluster's configuration entries: with them the applied index
// reaches every index that a reader may wait for.
//
// Its state can be replaced by another node's without raft's knowledge: that is
// sound because the state is nothing but what the log makes of it. Raft's log,
// term and vote stay as they are.
type raftFSM struct {
	machine  *fsm.Machine
	dedup    *dedup
	advanced func() // the commit index has moved; does not block
	fatal    func(error)
	closed   <-chan struct{} // the store is being closed
	// restored is told of every snapshot that became the state.
	restored func(index uint64)

	mu     sync.Mutex // held while the machine changes; guards the rest
	handed uint64     // the last index that raft gave or restored
	skip   uint64     // the state already holds the entries up to here
	frozen bool       // the state is wrong and waits for its replacement
	broken bool       // an entry could not be applied: the state is behind
}

var _ raft.BatchingFSM = (*raftFSM)(nil)

func (f *raftFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch answers nil for what it does not apply; whoever waits for it is
// told that the outcome is unknown.
func (f *raftFSM) ApplyBatch(logs []*raft.Log) []any {
	f.advanced()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]any, len(logs))
	f.handed = logs[len(logs)-1].Index
	if f.frozen || f.broken {
		return out
	}
	entries := make([]fsm.Entry, 0, len(logs))
	for _, l := range logs {
		if l.Index > f.skip {
			entries = append(entries, entryOf(l))
		}
	}
	results, err := f.apply(entries)
	if err != nil {
		// Going on would make this node differ, and raft takes no error here:
		// it waits for the end of the node.
		f.broken = true
		f.fatal(err)
		<-f.closed
		return out
	}
	skipped := len(logs) - len(entries)
	for i := range results {
		out[skipped+i] = &results[i]
	}
	return out
}

func entryOf(l *raft.Log) fsm.Entry {
	e := fsm.Entry{Index: l.Index, Term: l.Term}
	if l.Type == raft.LogCommand {
		e.Data = l.Data
	}
	return e
}

// apply turns the machine's panic about an entry into an error.
func (f *raftFSM) apply(entries []fsm.Entry) (results []fsm.Result, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case *fsm.CorruptEntryError:
			err = fmt.Errorf("%w: %w", ErrCorrupt, p)
		default:
			panic(p)
		}
	}()
	results = f.machine.Apply(entries)
	f.dedup.note(results)
	return results, nil
}

var errNoSnapshotNow = errors.New("the state is being replaced")

// Snapshot takes a reference to a state that never changes.
func (f *raftFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state := f.machine.State()
	if f.frozen || f.broken || state.Index() > f.handed {
		return nil, errNoSnapshotNow // raft would file it under another index
	}
	return snapshot{state}, nil
}

func (f *raftFSM) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }() // only read from
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.machine.Restore(r); err != nil {
		return err
	}
	f.handed, f.skip = f.machine.State().Index(), 0
	f.dedup.restored(f.handed)
	f.restored(f.handed)
	return nil
}

// freeze stops applying: the state is known to be wrong.
func (f *raftFSM) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = true
}

// lastHanded is the last index that raft gave.
func (f *raftFSM) lastHanded() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.handed
}

// adopt replaces the frozen state by one that fsm.ReadSnapshot returned. What
// raft gave since is taken from the log.
func (f *raftFSM) adopt(state *fsm.State, logs raft.LogStore) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var entries []fsm.Entry
	for i := state.Index() + 1; i <= f.handed; i++ {
		var l raft.Log
		if err := logs.GetLog(i, &l); err != nil {
			return fmt.Errorf("read log entry %d: %w", i, err)
		}
		if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			entries = append(entries, entryOf(&l))
		}
	}
	f.machine.Install(state)
	f.skip, f.frozen = state.Index(), false
	f.dedup.restored(f.skip)
	if len(entries) == 0 {
		return nil
	}
	_, err := f.apply(entries)
	if err != nil {
		f.broken = true
	}
	return err
}

type snapshot struct{ state *fsm.State }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	// Memory that changed by itself must not reach the disk.
	err := s.state.Verify(context.Background()) // a moment, and nothing to wait for
	if err == nil {
		err = s.state.WriteSnapshot(sink)
	}
	if err != nil {
		_ = sink.Cancel() // the error to report is err
		return err
	}
	return sink.Close()
}

func (snapshot) Release() {}
