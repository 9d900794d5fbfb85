package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/fsm/watch"
	"github.com/werbenhu/registry/store/lease"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/rafttransport"
)

// Store is a running node. All methods are safe for concurrent use.
type Store struct {
	cfg         Config
	log         *slog.Logger
	started     time.Time
	incarnation string
	hadState    bool // whether the directory held raft state when it was opened

	identMu sync.Mutex // orders the writes of node.json, so it is held during the fsync; taken alone
	ident   atomic.Pointer[identity]

	machine   *fsm.Machine
	watches   *watch.Hub
	rings     *rings.Cache
	fsm       *raftFSM
	integrity *integrity
	levels    *levelWatch
	disk      *diskWatch
	dead      deadVoters
	leases    *lease.Table
	counters  counters
	dedup     *dedup
	staleness *staleness
	follow    following
	raft      *raft.Raft
	transport *rafttransport.Transport
	files     *raftlog.Files
	logs      raft.LogStore    // as raft sees it
	commits   *raftlog.Commits // nil without StaleOnStart
	stale     atomic.Bool      // answers before it is ready: see Stale

	notify      chan bool
	streamEnded chan struct{} // buffer of 1
	proposals   chan *proposal
	progress    progress
	foreign     *repeats      // logged calls from other clusters
	inFlight    chan struct{} // holds one for each batch that raft has
	proposed    chan []*proposal
	collected   chan struct{} // closed when collectLoop has ended
	lead        atomic.Pointer[leadership]
	asked       atomic.Pointer[confirmer] // of the leader that was asked last
	confirming  sync.Mutex                // guards the rounds of confirmers: none starts once Close has ended ctx
	ready       chan struct{}

	membership *semaphore.Weighted // one change of the configuration at a time
	restoring  sync.Mutex          // one restoration at a time; only tried

	nonvoter    atomic.Bool // whether this node asks to join as a non-voter
	leaving     atomic.Bool // see Leaving
	invitedOnce sync.Once
	invited     chan struct{} // closed when Invited has joined this node to a cluster

	ctx    context.Context // ends with Close or with a failure
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	failOnce  sync.Once
	failed    chan struct{}
	failure   error // set before failed is closed
	closeOnce sync.Once
	closeErr  error
}

// Open opens the data directory and starts raft. The node answers reads once Ready
// is closed.
func Open(cfg Config) (_ *Store, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, started: time.Now(), leases: lease.New(cfg.Logger), dedup: newDedup(),
		notify: make(chan bool, 16), streamEnded: make(chan struct{}, 1), proposals: make(chan *proposal, maxBatchSize),
		inFlight: make(chan struct{}, maxBatches), proposed: make(chan []*proposal, maxBatches), collected: make(chan struct{}),
		levels: newLevelWatch(), integrity: newIntegrity(), disk: &diskWatch{}, foreign: newRepeats(),
		membership: semaphore.NewWeighted(1), ready: make(chan struct{}), invited: make(chan struct{}), failed: make(chan struct{}),
	}
	s.nonvoter.Store(cfg.Nonvoter)
	s.counters.ready = s.ready
	s.ident.Store(&identity{})
	s.staleness = newStaleness(cfg.ElectionTimeout)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.watches = watch.NewHub(fsm.New().State())
	s.rings = rings.New(rings.Config{State: func() *fsm.State { return s.machine.State() }, Memory: cfg.RingMemory, Lag: s.Lag, Logger: cfg.Logger})
	s.machine = fsm.New(append([]fsm.Observer{s.leases, &s.counters, s.watches, s.rings, s.levels}, cfg.Observers...)...)
	s.fsm = &raftFSM{machine: s.machine, advanced: func() { s.transport.Advanced() }, dedup: s.dedup, fatal: s.fail, closed: s.ctx.Done(), restored: s.gotSnapshot}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.openLog(); err != nil {
		return nil, err
	}
	if err := s.openRaft(); err != nil {
		return nil, err
	}
	go s.collectLoop()
	s.wg.Go(func() { s.proposeLoop(s.ctx) })
	s.wg.Go(func() { s.leaderLoop(s.ctx) })
	s.wg.Go(func() { s.leaderCrashLoop(s.ctx) })
	s.wg.Go(func() { s.readyLoop(s.ctx) })
	if s.commits != nil {
		s.wg.Go(func() { s.syncCommitsLoop(s.ctx) })
		if s.hadState {
			s.wg.Go(func() { s.staleLoop(s.ctx) })
		}
	}
	s.wg.Go(func() { s.stalenessLoop(s.ctx) })
	s.wg.Go(func() { s.followLoop(s.ctx) })
	s.wg.Go(func() { s.integrityLoop(s.ctx) })
	s.wg.Go(func() { s.diskLoop(s.ctx) })
	s.wg.Go(func() { s.levelLoop(s.ctx) })
	return s, nil
}

func (s *Store) openLog() error {
	dir := s.cfg.DataDir
	ident, err := openDataDir(dir, s.cfg.ID, s.cfg.Cluster, s.cfg.LogStore)
	if err == nil {
		err = checkFormat(dir, ident, s.cfg.FeatureLevel)
	}
	if err != nil {
		return err
	}
	s.ident.Store(&ident)
	s.incarnation = ident.Incarnation
	if s.files, err = raftlog.Lock(dir); err != nil {
		return unusable(dir, s.cfg.ID, err)
	}
	// Again under the lock: another process may have written node.json meanwhile.
	if again, err := openDataDir(dir, s.cfg.ID, s.cfg.Cluster, s.cfg.LogStore); err != nil || again.Incarnation != ident.Incarnation || again.Log != ident.Log {
		return errors.Join(fmt.Errorf("%w %s: another process claimed it at the same time", ErrDataDir, dir), err)
	}
	makeDirPrivate(dir, s.log)
	if err := s.files.Open(ident.logKind(), newRaftLogger(s.log), s.cfg.segmentSize); err != nil {
		return unusable(dir, s.cfg.ID, err)
	}
	if err := endRecovery(dir, &ident, s.files, newRaftLogger(s.log), func(string) {}); err != nil {
		return err
	}
	s.ident.Store(&ident)
	return removeUnfinished(dir)
}

// trailingFactor × SnapshotThreshold entries stay in the log after a snapshot, so
// that a follower that was down briefly needs no snapshot.
const trailingFactor = 2

func (s *Store) openRaft() error {
	if err := s.prepareRestore(); err != nil {
		return err
	}
	logger := newRaftLogger(s.log)
	snaps, err := raftlog.OpenSnapshots(s.cfg.DataDir, logger)
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrDataDir, s.cfg.DataDir, err)
	}
	watchdog := raftlog.Watchdog{MaxHang: s.cfg.MaxHang, Fatal: s.fail, Closed: s.ctx.Done()}
	logs, stable, err := s.files.Guard(raftlog.GuardConfig{
		Watchdog: watchdog, Snapshots: snaps, Writing: s.writing, Wrote: s.wrote, WrapLog: s.cfg.wrapLog, WrapStable: s.cfg.wrapStable,
	})
	if err != nil {
		return err
	}
	s.logs = logs
	if err := s.verifyStored(snaps); err != nil {
		return err
	}
	if err := s.openCommits(snaps, logs, watchdog); err != nil {
		return err
	}
	s.transport = rafttransport.New(rafttransport.Config{
		Streams: s.streams(), Timeout: max(2*s.cfg.ElectionTimeout, time.Second), Logger: logger, Contacts: s.staleness,
		Refused:    func(err error) { logger.Error("refused a raft message", "error", err) },
		Heartbeats: s.cfg.heartbeats,
	})
	if err := s.restoreFile(snaps, stable); err != nil {
		return err
	}
	if s.hadState, err = raft.HasExistingState(logs, stable, snaps); err != nil {
		return fmt.Errorf("%w %s: %w", ErrDataDir, s.cfg.DataDir, err)
	}
	s.raft, err = raft.NewRaft(s.raftConfig(), &timedFSM{s.fsm, s.cfg.Instruments}, logs, stable, snaps, s.transport)
	if err != nil {
		return fmt.Errorf("%w %s: start raft: %w", ErrDataDir, s.cfg.DataDir, err)
	}
	s.transport.Attach(s.raft, logs)
	return nil
}

// writing is called before entries are written to the log.
func (s *Store) writing(logs []*raft.Log) {
	if s.transport != nil {
		s.transport.Writing(logs)
	}
}

// wrote is called after entries were written to the log.
func (s *Store) wrote(last uint64) {
	s.follow.gotEntries()
	if s.transport != nil {
		s.transport.Wrote(last)
	}
}

// verifyStored verifies log, term, vote and snapshots before raft uses them.
func (s *Store) verifyStored(snaps *raftlog.Snapshots) error {
	from, last, err := s.files.Verify()
	if err == nil {
		found, serr := snaps.Check(s.log)
		if serr != nil {
			return fmt.Errorf("%w %s: %w", ErrDataDir, s.cfg.DataDir, serr)
		}
		err = found.VerifyBase(from, last, s.log)
	}
	if err != nil {
		return unusable(s.cfg.DataDir, s.cfg.ID, err)
	}
	if err := s.files.DropOther(); err != nil {
		return fmt.Errorf("%w %s: %w%s", ErrDataDir, s.cfg.DataDir, err, raftlog.Advice(err))
	}
	return nil
}

func (s *Store) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(s.cfg.ID)
	c.HeartbeatTimeout = s.cfg.ElectionTimeout
	c.ElectionTimeout = s.cfg.ElectionTimeout
	c.LeaderLeaseTimeout = s.cfg.ElectionTimeout
	c.MaxAppendEntries = 1024
	c.BatchApplyCh = true
	c.SnapshotThreshold = s.cfg.SnapshotThreshold
	c.SnapshotInterval = s.cfg.SnapshotInterval
	c.TrailingLogs = trailingFactor * s.cfg.SnapshotThreshold
	c.NotifyCh = s.notify
	c.NoLegacyTelemetry = true
	c.Logger = newRaftLogger(s.log)
	return c
}

// fail marks the node as failed; its owner then closes it.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		if errors.Is(err, ErrLeft) {
			s.log.Info("left the cluster")
		} else {
			s.log.Error("node fails", "error", err)
		}
		s.failure = err
		close(s.failed)
	})
}

// Failed is closed when the node cannot continue; Failure returns why.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Failure is nil until Failed is closed.
func (s *Store) Failure() error {
	select {
	case <-s.failed:
		return s.failure
	default:
		return nil
	}
}

// HandOver transfers leadership to another voter, if this node leads and there is
// one. It is for a node that is about to stop: from then on it refuses writes.
func (s *Store) HandOver() {
	if s.raft == nil || s.raft.State() != raft.Leader || s.Failure() != nil {
		return // after a failure raft may hang in a write and never return
	}
	if voters, err := s.voters(); err != nil || len(voters) < 2 {
		return
	}
	if err := s.handOver(s.ctx); errors.Is(err, errNoSuccessor) {
		s.log.Info("no leadership transfer: no other voter answers")
	} else if err != nil {
		s.log.Warn("could not hand leadership over", "error", err)
	}
}

// waitCollected waits for the end of collectLoop; false after the limit.
func (s *Store) waitCollected(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.collected:
		return true
	case <-timer.C:
		return false
	}
}

// drainLimit bounds how long Close waits for the outcomes of proposals: raft never
// answers an entry that is in its queue when it stops.
const drainLimit = 200 * time.Millisecond

// Close stops the node in this order: (1) wait up to drainLimit for the outcomes of
// proposals; (2) stop raft; (3) close the transport's connections, which unblocks
// calls to peers; (4) wait for raft's goroutines; (5) wait for the store's own;
// (6) drop queued ring builds and stop waking watchers; (7) close the log. A node
// that failed gives up after failedCloseLimit, because its disk may hang. Close may
// be called more than once.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		closed := make(chan error, 1)
		go func() { closed <- s.close() }()
		select {
		case s.closeErr = <-closed:
			return
		case <-s.failed:
		}
		timer := time.NewTimer(failedCloseLimit)
		defer timer.Stop()
		select {
		case s.closeErr = <-closed:
		case <-timer.C:
			s.closeErr = fmt.Errorf("%w: gave up closing the log", ErrStorage)
		}
	})
	return s.closeErr
}

// failedCloseLimit bounds the Close of a node that failed.
const failedCloseLimit = 5 * time.Second

func (s *Store) close() error {
	var errs []error
	s.confirming.Lock()
	s.cancel(ErrClosed)
	s.confirming.Unlock()
	if s.raft != nil {
		if s.Failure() == nil {
			s.waitCollected(drainLimit) // 1
		}
		stopped := s.raft.Shutdown()             // 2
		errs = append(errs, s.transport.Close()) // 3
		s.transport.CloseStreams()               //
		errs = append(errs, stopped.Error())     // 4
	} else if s.transport != nil {
		errs = append(errs, s.transport.Close())
	}
	s.wg.Wait() // 5
	if s.raft != nil && !s.waitCollected(time.Second) {
		s.log.Debug("an entry in raft's queue was never answered")
	}
	s.rings.Close() // 6
	s.watches.Close()
	if s.files != nil {
		errs = append(errs, s.files.Close()) // 7
	}
	return errors.Join(errs...)
}
