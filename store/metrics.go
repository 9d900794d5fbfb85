package store

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/store/lease"
)

// Instruments are told how long things took. Those that are nil are not
// called. They are called on goroutines that others wait for: they must be
// quick, and safe for concurrent use.
type Instruments struct {
	// Applied entries of the log in one batch.
	Applied func(entries int, took time.Duration)
	// Written: an entry was proposed by this node and answered, or given up.
	Written func(took time.Duration, err error)
	// Confirmed: a leadership check was made.
	Confirmed func(took time.Duration, err error)
	// Snapshot of that many bytes was written.
	Snapshot func(bytes int64, took time.Duration, err error)
	// Restored a snapshot.
	Restored func(took time.Duration, err error)
}

// Metrics is what a node counts and measures of itself, at one moment. Counts
// are since the store was opened.
type Metrics struct {
	Leader, Ready                         bool
	Term                                  uint64
	CommitIndex, AppliedIndex, FirstIndex uint64
	LastIndex                             uint64
	Lag                                   time.Duration
	Voters, Nonvoters                     int
	LeaderChanges                         uint64 // terms that began while this node was ready
	Led                                   uint64 // times that this node became the leader

	// Comparisons of states by how they ended for this node: all agreed, another
	// node differed from the majority, no majority decided, this node was wrong.
	Agreed, Majority, Undecided, Wrong uint64
	Reinstalls                         uint64
	Alarms                             int // at present: what the status lists

	Groups, Members int
	Rings           rings.Stats

	Leases             int    // that this node keeps deadlines for: 0 unless it leads
	Renewed, NotLeased uint64 // by acknowledged heartbeats; and those that were lost
	Expired            uint64 // by entries of this node
	Stalls             uint64 // times that this process stood still while it led
	Guard              lease.Stats

	Log          bbolt.Stats   // of raft.db
	LogWrites    uint64        // pages of raft.db, and batches and truncations of segments
	LogWriteTime time.Duration // of those, with their syncs
	LogSize      int64         // of raft.db and the segments, in bytes

	DiskFree   uint64 // bytes that this node may use where its data is
	DiskFreeOK bool   // false where the system does not tell
	DiskLow    bool   // less than the low-water mark is free
}

// counters are what a store counts as it goes.
type counters struct {
	ready <-chan struct{} // closed when the node has caught up since its start

	renewed, notLeased, expired, stalls, led, leaderChanges atomic.Uint64

	checks     [inMinority + 1]atomic.Uint64 // by agreement
	reinstalls atomic.Uint64
}

// Applied notes the terms that begin (see fsm.Observer). Those that are read
// from the log after a start began long ago.
func (c *counters) Applied(u *fsm.Update) {
	select {
	case <-c.ready:
		c.leaderChanges.Add(uint64(len(u.Terms)))
	default:
	}
}

// Restored has nothing to count.
func (c *counters) Restored(*fsm.State) {}

// Metrics measures this node. It takes no lock that a writer holds for long.
func (s *Store) Metrics() Metrics {
	state := s.State()
	m := Metrics{
		Leader: s.IsLeader(), Ready: s.Serving() == nil, Term: s.raft.CurrentTerm(), Lag: s.Lag(),
		CommitIndex: s.raft.CommitIndex(), AppliedIndex: state.Index(), LastIndex: s.raft.LastIndex(),
		LeaderChanges: s.counters.leaderChanges.Load(), Led: s.counters.led.Load(),
		Groups: state.GroupCount(), Members: state.MemberCount(), Rings: s.rings.Stats(),
		Leases: s.leases.Len(), Renewed: s.counters.renewed.Load(), NotLeased: s.counters.notLeased.Load(),
		Expired: s.counters.expired.Load(), Stalls: s.counters.stalls.Load(), Guard: s.leases.Stats(),
		Agreed: s.counters.checks[agreed].Load(), Majority: s.counters.checks[inMajority].Load(),
		Undecided: s.counters.checks[undecided].Load(), Wrong: s.counters.checks[inMinority].Load(),
		Reinstalls: s.counters.reinstalls.Load(), Alarms: len(s.alarms()),
		Log: s.files.DB(), LogSize: s.files.Size(),
	}
	m.LogWrites, m.LogWriteTime = s.files.Writes()
	if first, err := s.files.Entries().FirstIndex(); err == nil {
		m.FirstIndex = first
	}
	if servers, _, err := s.configuration(); err == nil {
		for _, server := range servers {
			if server.Suffrage == raft.Voter {
				m.Voters++
			} else {
				m.Nonvoters++
			}
		}
	}
	m.DiskLow = s.LowDisk() != nil
	if free, err := s.cfg.diskFree(s.cfg.DataDir); err == nil {
		m.DiskFree, m.DiskFreeOK = free, true
	}
	return m
}

// timedFSM tells the instruments how long the state machine takes.
type timedFSM struct {
	raft.BatchingFSM
	to Instruments
}

func (f *timedFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *timedFSM) ApplyBatch(logs []*raft.Log) []any {
	if f.to.Applied == nil {
		return f.BatchingFSM.ApplyBatch(logs)
	}
	start := time.Now()
	out := f.BatchingFSM.ApplyBatch(logs)
	f.to.Applied(len(logs), time.Since(start))
	return out
}

func (f *timedFSM) Snapshot() (raft.FSMSnapshot, error) {
	s, err := f.BatchingFSM.Snapshot()
	if err != nil || f.to.Snapshot == nil {
		return s, err
	}
	return &timedSnapshot{s, f.to.Snapshot}, nil
}

func (f *timedFSM) Restore(r io.ReadCloser) error {
	start := time.Now()
	err := f.BatchingFSM.Restore(r)
	if f.to.Restored != nil {
		f.to.Restored(time.Since(start), err)
	}
	return err
}

type timedSnapshot struct {
	raft.FSMSnapshot
	tell func(bytes int64, took time.Duration, err error)
}

func (s *timedSnapshot) Persist(sink raft.SnapshotSink) error {
	counted := &countingSink{SnapshotSink: sink}
	start := time.Now()
	err := s.FSMSnapshot.Persist(counted)
	s.tell(counted.bytes, time.Since(start), err)
	return err
}

type countingSink struct {
	raft.SnapshotSink
	bytes int64
}

func (s *countingSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	s.bytes += int64(n)
	return n, err
}
