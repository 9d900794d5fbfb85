package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// leadership is one term of this node as the leader.
type leadership struct {
	term uint64
	ctx  context.Context // ends with the leadership
	end  context.CancelCauseFunc
	// opened is closed once the term's first entry is applied: writes and consistent
	// reads wait for it.
	opened  chan struct{}
	confirm confirmer
	agreed  []raft.ServerID // in the last leadership check; only a check uses it
}

// leaderLoop handles raft's notifications. It must always receive: raft blocks on
// the channel.
func (s *Store) leaderLoop(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case leads := <-s.notify:
			stop()
			stop = func() {}
			if leads {
				stop = s.startLeading(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// startLeading begins a leadership; the returned function ends it and waits.
func (s *Store) startLeading(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &leadership{term: s.raft.CurrentTerm(), ctx: ctx, end: cancel, opened: make(chan struct{})}
	l.confirm = confirmer{s: s, ctx: ctx, round: func() (uint64, error) { return s.checkLeadership(l) }}
	s.lead.Store(l)
	s.counters.led.Add(1)
	s.progress.termBegins()
	var work sync.WaitGroup
	work.Go(func() { s.leadTerm(l) })
	work.Go(func() { s.progressLoop(ctx, l.term) })
	return func() {
		s.lead.CompareAndSwap(l, nil)
		cancel(fmt.Errorf("%w: leadership ended", ErrNotLeader))
		work.Wait()
		s.leases.Follow()
		s.log.Info("no longer leader", "term", l.term)
	}
}

// leadTerm runs the leader's work in this order: the term's first entry is applied,
// the founders are recorded (once), every lease gets its full TTL, writes and
// consistent reads open.
func (s *Store) leadTerm(l *leadership) {
	if !s.awaitNotDiverged(l.ctx) || !s.startTerm(l) {
		return
	}
	for err := s.recordFounders(l.ctx); err != nil; err = s.recordFounders(l.ctx) {
		s.log.Warn("could not record the founders", "term", l.term, "error", err)
		if !pause(l.ctx, formEvery) {
			return
		}
	}
	s.leases.Lead(s.machine)
	close(l.opened)
	s.log.Info("leader", "term", l.term, "leases", s.leases.Len())

	var work sync.WaitGroup
	work.Go(func() { s.promoteLoop(l) })
	work.Go(func() { s.checkLoop(l) })
	work.Go(func() { s.followersDiskLoop(l) })
	work.Go(func() { s.removeDeadLoop(l) })
	work.Go(func() { s.deleteEmptyLoop(l) })
	s.expireLoop(l)
	work.Wait()
}

// startTerm commits the term's first entry. It retries until the leadership ends: a
// leader that gave up, after a disk stall for example, would lead and never open.
func (s *Store) startTerm(l *leadership) bool {
	op := &fsmpb.TermStart{Node: s.cfg.ID}
	if level := s.ident.Load().level(); level > 1 && s.State().Term() == 0 { // it may be the first entry
		op.FeatureLevel = level
	}
	for {
		start := &fsmpb.Command{Op: &fsmpb.Command_TermStart{TermStart: op}}
		_, err := s.propose(l.ctx, start)
		if err == nil {
			return true
		}
		if l.ctx.Err() != nil {
			return false
		}
		level := slog.LevelWarn
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			level = slog.LevelInfo // this node stops, and hands over right after its election
		}
		s.log.Log(l.ctx, level, "could not start the term", "term", l.term, "error", err)
		if !pause(l.ctx, 50*time.Millisecond) {
			return false
		}
	}
}

const (
	// expireBatch bounds the leases of one expiry entry.
	expireBatch = 1000
	// pauseLimit is how late the expiry loop may wake up before it assumes that the
	// process was paused or the machine suspended.
	pauseLimit = 500 * time.Millisecond
	// pauseGrace is what leases get then, or their TTL if that is less, so that the
	// heartbeats that wait in the sockets are read first.
	pauseGrace = 2 * time.Second
	// maxSleep bounds the expiry loop's sleep, so that it detects a pause.
	maxSleep = 250 * time.Millisecond
)

// expireLoop proposes the expiry of leases that are due, fenced by the term.
func (s *Store) expireLoop(l *leadership) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	planned := time.Now()
	for {
		select {
		case <-timer.C:
		case <-s.leases.Wake():
		case <-l.ctx.Done():
			return
		}
		if late := time.Since(planned); late > pauseLimit {
			s.counters.stalls.Add(1)
			s.log.Warn("process was paused; leases get time to renew", "late", late)
			s.leases.Grace(pauseGrace)
		}
		woke := time.Now() // before the proposal: the process may be paused in it
		leases, next := s.leases.Due(expireBatch)
		if len(leases) > 0 {
			s.expire(l, leases)
		}
		if next < 0 || next > maxSleep {
			next = maxSleep
		}
		timer.Reset(next)
		planned = woke.Add(next)
	}
}

// expire proposes one expiry. If its outcome is unknown, the leases get their full
// TTL again. That is safe, and it ends: an applied expiry removes them.
func (s *Store) expire(l *leadership, leases []*fsmpb.ExpiredLease) {
	op := &fsmpb.Expire{Term: l.term, Leases: leases}
	_, err := s.propose(l.ctx, &fsmpb.Command{Op: &fsmpb.Command_Expire{Expire: op}})
	if err == nil {
		s.counters.expired.Add(uint64(len(leases)))
		s.log.Info("leases expired", "count", len(leases), "group", leases[0].Group, "id", leases[0].Id)
		return
	}
	if l.ctx.Err() == nil {
		s.log.Warn("could not expire leases", "count", len(leases), "error", err)
		s.leases.Retry(leases)
	}
}
