package store

import (
	"io"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
)

// raftFSM shows the state machine to raft. It takes batches, because a batch
// also holds the cluster's configuration entries: with them the applied index
// reaches every index that a reader may wait for.
type raftFSM struct {
	machine *fsm.Machine
	commits *commitFeed
}

var _ raft.BatchingFSM = (*raftFSM)(nil)

func (f *raftFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *raftFSM) ApplyBatch(logs []*raft.Log) []any {
	f.commits.advanced()
	entries := make([]fsm.Entry, len(logs))
	for i, l := range logs {
		entries[i] = fsm.Entry{Index: l.Index, Term: l.Term}
		if l.Type == raft.LogCommand {
			entries[i].Data = l.Data
		}
	}
	results := f.machine.Apply(entries)
	out := make([]any, len(results))
	for i := range results {
		out[i] = &results[i]
	}
	return out
}

// Snapshot takes a reference to a state that never changes.
func (f *raftFSM) Snapshot() (raft.FSMSnapshot, error) {
	return snapshot{f.machine.State()}, nil
}

func (f *raftFSM) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }() // only read from
	return f.machine.Restore(r)
}

type snapshot struct{ state *fsm.State }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.state.WriteSnapshot(sink); err != nil {
		_ = sink.Cancel() // the error to report is err
		return err
	}
	return sink.Close()
}

func (snapshot) Release() {}
