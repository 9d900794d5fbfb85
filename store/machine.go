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

// raftFSM adapts the state machine to raft. It applies batches, because raft passes
// configuration entries only in batches: with them the applied index reaches every
// index that a reader may wait for.
//
// Its state can be replaced by another node's without raft's knowledge, because the
// state depends on the log only. Raft's log, term and vote do not change.
type raftFSM struct {
	machine  *fsm.Machine
	dedup    *dedup
	advanced func() // called when the commit index has advanced; does not block
	fatal    func(error)
	closed   <-chan struct{} // the store is being closed
	// restored is called after each snapshot that was installed.
	restored func(index uint64)
	// committed is called with the last of the entries that raft passes, before they are
	// applied: what a reader saw is recorded. nil: nobody records it.
	committed func(index, term uint64)

	mu     sync.Mutex // held while the state changes; guards the rest
	handed uint64     // the last index that raft passed or restored
	skip   uint64     // the state already includes the entries up to here
	frozen bool       // the state is wrong and waits for its replacement
	broken bool       // an entry could not be applied: the state is behind
}

var _ raft.BatchingFSM = (*raftFSM)(nil)

func (f *raftFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch returns nil for an entry that it does not apply; the outcome of that
// proposal is then unknown.
func (f *raftFSM) ApplyBatch(logs []*raft.Log) []any {
	f.advanced()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]any, len(logs))
	last := logs[len(logs)-1]
	f.handed = last.Index
	if f.committed != nil {
		f.committed(last.Index, last.Term)
	}
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
		// To continue would make this node differ, and raft takes no error here: block
		// until the node is closed.
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
			if errors.Is(p, fsm.ErrFeatureLevel) {
				err = p
				return
			}
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
		return nil, errNoSnapshotNow // raft would store it under another index
	}
	return snapshot{state}, nil
}

func (f *raftFSM) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }() // only read from
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.machine.Restore(r); err != nil {
		if errors.Is(err, fsm.ErrFeatureLevel) {
			f.fatal(err) // raft would try again for ever
		}
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

// lastHanded is the last index that raft passed.
func (f *raftFSM) lastHanded() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.handed
}

// adopt replaces the frozen state by one from fsm.ReadSnapshot, and applies from the
// log the entries that raft has passed since.
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
	// Corrupted memory must not reach the disk.
	err := s.state.Verify(context.Background()) // short, and it waits for nothing
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
