package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
)

const (
	// More than maxReinstalls in reinstallSpan are attributed to failing hardware.
	maxReinstalls = 3
	reinstallSpan = time.Hour
	// reinstallEvery is the pause between two attempts.
	reinstallEvery = 250 * time.Millisecond
	// handOverFactor × ElectionTimeout is how long a leader whose state is wrong
	// tries to hand over before it ends.
	handOverFactor = 20
)

// reinstall stops serving, hands leadership over, and replaces the state with the
// state of a node of the majority. Raft's log, term and vote do not change, so the
// node still votes and stores entries, and its earlier votes and acknowledgements
// hold. It returns when the node answers again, or when ctx ends.
func (s *Store) reinstall(ctx context.Context, finding error, majority []raft.Server) {
	cause := fmt.Errorf("%w: %w", ErrDiverged, finding)
	s.fsm.freeze()
	s.integrity.set(cause)
	s.log.Error("state is wrong; this node answers nothing until it has installed the state of another node", "finding", finding)
	if s.tooOften() {
		s.fail(fmt.Errorf("%w: for the %dth time within %s; have the memory and the processor of this machine tested", cause, maxReinstalls+1, reinstallSpan))
		return
	}
	if l := s.lead.Load(); l != nil {
		l.end(cause)
	}
	log := every(10 * time.Second)
	for {
		err := s.tryReinstall(ctx, cause, majority)
		if err == nil {
			break
		}
		if log() {
			s.log.Warn("could not install the state of another node yet", "error", err)
		}
		if s.Failure() != nil || !pause(ctx, reinstallEvery) {
			return
		}
		majority = nil // those may be down: try all
	}
	s.integrity.set(nil)
	s.counters.reinstalls.Add(1)
	s.log.Warn("state was reinstalled; the node answers again", "index", s.State().Index())
	s.keepReinstalled(ctx)
}

func (s *Store) tooOften() bool {
	g := s.integrity
	g.mu.Lock()
	defer g.mu.Unlock()
	recent := g.reinstalls[:0]
	for _, at := range g.reinstalls {
		if time.Since(at) < reinstallSpan {
			recent = append(recent, at)
		}
	}
	g.reinstalls = append(recent, time.Now())
	return len(g.reinstalls) > maxReinstalls
}

func (s *Store) tryReinstall(ctx context.Context, cause error, from []raft.Server) error {
	servers, _, err := s.configuration()
	if err != nil {
		return err
	}
	if len(servers) < 2 {
		s.fail(fmt.Errorf("%w; this is the only node of its cluster: start it again, and it rebuilds its state from its snapshot and its log", cause))
		return cause
	}
	if err := s.stopLeading(ctx, cause); err != nil {
		return err
	}
	if from == nil {
		from = servers
	}
	var errs []error
	for _, server := range from {
		if server.ID == raft.ServerID(s.cfg.ID) {
			continue
		}
		if err := s.adoptFrom(ctx, server); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", server.ID, err))
			continue
		}
		return s.catchUp(ctx)
	}
	return errors.Join(errs...)
}

// stopLeading hands leadership over. If no node takes it, this node ends, and the
// others elect a leader.
func (s *Store) stopLeading(ctx context.Context, cause error) error {
	limit := time.Now().Add(handOverFactor * s.cfg.ElectionTimeout)
	for s.raft.State() == raft.Leader {
		if err := s.handOver(ctx); err != nil {
			s.log.Warn("could not hand leadership over", "error", err)
		}
		if s.raft.State() == raft.Leader && time.Now().After(limit) {
			s.fail(fmt.Errorf("%w; it leads, and no other node took over", cause))
			return cause
		}
		if !pause(ctx, 50*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// adoptFrom installs the state of another node.
func (s *Store) adoptFrom(ctx context.Context, server raft.Server) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := s.cfg.Peers.State(ctx, s.target(string(server.Address), string(server.ID)), s.fsm.lastHanded())
	if err != nil {
		return err
	}
	state, err := fsm.ReadSnapshot(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if err := s.fsm.adopt(state, s.logs); err != nil {
		if errors.Is(err, ErrCorrupt) {
			s.fail(err)
		}
		return err
	}
	s.log.Info("installed the state of another node", "from", server.ID, "index", state.Index(), "digest", hex16(state.Digest()))
	return nil
}

// keepReinstalled writes a snapshot, so that the next start does not rebuild the
// wrong state from an older one. It tries several times: raft refuses a snapshot
// until it has applied all entries that the new state holds.
func (s *Store) keepReinstalled(ctx context.Context) {
	for range 20 {
		err := s.raft.Snapshot().Error()
		if err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return
		}
		s.log.Debug("no snapshot of the reinstalled state yet", "error", err)
		if !pause(ctx, reinstallEvery) {
			return
		}
	}
}

// WriteState writes this node's state at the index or a later one, for a node
// whose state is wrong. It fails if this node does not reach the index within
// peerTimeout; the caller then tries another node.
func (s *Store) WriteState(ctx context.Context, atLeast uint64, w io.Writer) error {
	if err := s.Serving(); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	state, err := s.WaitIndex(wait, atLeast)
	if err != nil {
		return fmt.Errorf("%w: entry %d is not applied here", err, atLeast)
	}
	if err := state.Verify(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrDiverged, err)
	}
	return state.WriteSnapshot(w)
}
