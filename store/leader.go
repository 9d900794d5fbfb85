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

// leadership is one stretch of this node leading.
type leadership struct {
	term uint64
	ctx  context.Context // ends when the stretch ends
	end  context.CancelCauseFunc
	// opened is closed when the term's first entry was applied: writes and
	// consistent reads wait for it.
	opened chan struct{}
}

// leaderLoop follows raft's notifications. The channel is always drained: raft
// blocks on it.
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

// startLeading begins a stretch; the returned function ends it and waits.
func (s *Store) startLeading(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &leadership{term: s.raft.CurrentTerm(), ctx: ctx, end: cancel, opened: make(chan struct{})}
	s.lead.Store(l)
	s.counters.led.Add(1)
	s.progress.begins()
	var work sync.WaitGroup
	work.Go(func() { s.leadTerm(l) })
	work.Go(func() { s.watchProgress(ctx, l.term) })
	return func() {
		s.lead.CompareAndSwap(l, nil)
		cancel(fmt.Errorf("%w: leadership ended", ErrNotLeader))
		work.Wait()
		s.leases.Follow()
		s.log.Info("no longer leader", "term", l.term)
	}
}

// leadTerm does the leader's work in this order: the term's first entry is
// applied, the founders are noted (once), every lease gets its full TTL, writes and consistent reads open.
func (s *Store) leadTerm(l *leadership) {
	if !s.awaitNotDiverged(l.ctx) || !s.startTerm(l) {
		return
	}
	for err := s.noteFounders(l.ctx); err != nil; err = s.noteFounders(l.ctx) {
		s.log.Warn("could not note the founders", "term", l.term, "error", err)
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
	s.expireLoop(l)
	work.Wait()
}

// startTerm has the term's first entry applied. It tries until the leadership
// ends: a leader that gave up, say after its disk stalled, would lead on and
// never open.
func (s *Store) startTerm(l *leadership) bool {
	for {
		start := &fsmpb.Command{Op: &fsmpb.Command_TermStart{TermStart: &fsmpb.TermStart{Node: s.cfg.ID}}}
		_, err := s.propose(l.ctx, start)
		if err == nil {
			return true
		}
		if l.ctx.Err() != nil {
			return false
		}
		level := slog.LevelWarn
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			level = slog.LevelInfo // it stops, and hands over what it was just given
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
	// stallLimit is how late the expiry loop may wake up before it takes its
	// process for stopped or its machine for resumed.
	stallLimit = 500 * time.Millisecond
	// stallGrace is what leases get then, so that the heartbeats that wait in
	// the sockets are read first; a lease's TTL, if that is less.
	stallGrace = 2 * time.Second
	// longestNap bounds the expiry loop's sleep, so that it notices a stall.
	longestNap = 250 * time.Millisecond
)

// expireLoop proposes the expiry of leases that ran out, fenced by the term.
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
		if late := time.Since(planned); late > stallLimit {
			s.counters.stalls.Add(1)
			s.log.Warn("process stood still; leases get time to renew", "late", late)
			s.leases.Grace(stallGrace)
		}
		woke := time.Now() // before the proposal: the process may stand still in it
		leases, next := s.leases.Due(expireBatch)
		if len(leases) > 0 {
			s.expire(l, leases)
		}
		if next < 0 || next > longestNap {
			next = longestNap
		}
		timer.Reset(next)
		planned = woke.Add(next)
	}
}

// expire proposes one expiry. When its outcome is not known the leases start
// over, which is safe and ends: an expiry that was applied took them out.
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
