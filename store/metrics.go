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

// Instruments observe durations. Each may be nil. They run on goroutines that others
// wait for, so they must be fast, and safe for concurrent use.
type Instruments struct {
	// Applied observes a batch of entries that was applied.
	Applied func(entries int, took time.Duration)
	// Written observes an entry that this node proposed, until its outcome or the end
	// of its caller's context.
	Written func(took time.Duration, err error)
	// Confirmed observes a leadership check.
	Confirmed func(took time.Duration, err error)
	// Snapshot observes a snapshot that was written.
	Snapshot func(bytes int64, took time.Duration, err error)
	// Restored observes a snapshot that was installed.
	Restored func(took time.Duration, err error)
}

// Metrics is a sample of this node's measurements. Counts are since the store was
// opened.
type Metrics struct {
	Leader, Ready                         bool
	Term                                  uint64
	CommitIndex, AppliedIndex, FirstIndex uint64
	LastIndex                             uint64
	Lag                                   time.Duration
	Voters, Nonvoters                     int
	LeaderChanges                         uint64 // terms that began while this node was ready
	Led                                   uint64 // times that this node became the leader
	DeadRemoved                           uint64 // dead voters that this node removed as the leader
	EmptyDeleted                          uint64 // empty groups that this node deleted as the leader

	// Consistency checks by result: all agreed, another node differed from the
	// majority, there was no majority, this node was wrong.
	Agreed, Majority, Undecided, Wrong uint64
	Reinstalls                         uint64
	Alarms                             int // current, as in Status

	Groups, Members int
	TokensRevision  uint64 // see fsm.State
	Rings           rings.Stats

	Leases             int    // that this node keeps deadlines for: 0 unless it leads
	Renewed, NotLeased uint64 // by acknowledged heartbeats, and those that were lost
	Expired            uint64 // by entries of this node
	Stalls             uint64 // times that this process was paused while it led
	Guard              lease.Stats

	Log          bbolt.Stats   // of raft.db
	LogWrites    uint64        // pages of raft.db, and batches and truncations of segments
	LogWriteTime time.Duration // of those, with their syncs
	LogSize      int64         // of raft.db and the segments, in bytes

	DiskFree   uint64 // bytes that this node may use on the disk of its data
	DiskFreeOK bool   // false if the system does not report it
	DiskLow    bool   // less than the low-water mark is free
}

// counters are the counters of a store.
type counters struct {
	ready <-chan struct{} // see Store.Ready

	renewed, notLeased, expired, stalls, led, leaderChanges atomic.Uint64

	checks                    [inMinority + 1]atomic.Uint64 // by agreement
	reinstalls                atomic.Uint64
	deadRemoved, emptyDeleted atomic.Uint64
}

// Applied counts the terms that begin (see fsm.Observer), except those that are
// replayed from the log after a start.
func (c *counters) Applied(u *fsm.Update) {
	select {
	case <-c.ready:
		c.leaderChanges.Add(uint64(len(u.Terms)))
	default:
	}
}

// Restored implements fsm.Observer.
func (c *counters) Restored(*fsm.State) {}

// Metrics samples this node. It takes no lock that is held for long.
func (s *Store) Metrics() Metrics {
	state := s.State()
	m := Metrics{
		Leader: s.IsLeader(), Ready: s.IsReady() && s.Serving() == nil, Term: s.raft.CurrentTerm(), Lag: s.Lag(),
		CommitIndex: s.raft.CommitIndex(), AppliedIndex: state.Index(), LastIndex: s.raft.LastIndex(),
		LeaderChanges: s.counters.leaderChanges.Load(), Led: s.counters.led.Load(), DeadRemoved: s.counters.deadRemoved.Load(), EmptyDeleted: s.counters.emptyDeleted.Load(),
		Groups: state.GroupCount(), Members: state.MemberCount(), TokensRevision: state.TokensRevision(), Rings: s.rings.Stats(),
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

// timedFSM measures the state machine for the instruments.
type timedFSM struct {
	raft.BatchingFSM
	observers Instruments
}

func (f *timedFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *timedFSM) ApplyBatch(logs []*raft.Log) []any {
	if f.observers.Applied == nil {
		return f.BatchingFSM.ApplyBatch(logs)
	}
	start := time.Now()
	out := f.BatchingFSM.ApplyBatch(logs)
	f.observers.Applied(len(logs), time.Since(start))
	return out
}

func (f *timedFSM) Snapshot() (raft.FSMSnapshot, error) {
	s, err := f.BatchingFSM.Snapshot()
	if err != nil || f.observers.Snapshot == nil {
		return s, err
	}
	return &timedSnapshot{s, f.observers.Snapshot}, nil
}

func (f *timedFSM) Restore(r io.ReadCloser) error {
	start := time.Now()
	err := f.BatchingFSM.Restore(r)
	if f.observers.Restored != nil {
		f.observers.Restored(time.Since(start), err)
	}
	return err
}

type timedSnapshot struct {
	raft.FSMSnapshot
	observe func(bytes int64, took time.Duration, err error)
}

func (s *timedSnapshot) Persist(sink raft.SnapshotSink) error {
	counted := &countingSink{SnapshotSink: sink}
	start := time.Now()
	err := s.FSMSnapshot.Persist(counted)
	s.observe(counted.bytes, time.Since(start), err)
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
