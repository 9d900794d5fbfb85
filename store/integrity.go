package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// integrity is the consistency check. While entries are applied, the leader
// commits a check entry every CheckInterval. Each node records the digest of its
// state at exactly that entry and compares it with the other nodes' digests. If a
// majority of the voters has another digest, this node's state is wrong, whether
// it leads or not. Each check also compares some of the cached rings, in turn:
// rings of one group with one fingerprint must have one digest. In addition each
// node verifies its own records every scrubEvery, which finds memory corruption
// on a single node too.
//
// A node whose state is wrong answers nothing, gives up leadership and installs
// the state of a node of the majority: see reinstall.
type integrity struct {
	mu         sync.Mutex              // guards the rest
	cause      error                   // why this node answers nothing; nil: it answers
	undecided  string                  // the difference, while no digest has a majority
	changed    chan struct{}           // closed and replaced when the result of Serving may change
	answering  context.Context         // ended and replaced when this node stops answering
	end        context.CancelCauseFunc // of answering
	nextGroup  string                  // the group to start the next comparison of rings with
	reinstalls []time.Time

	scrubNow chan chan<- struct{} // a test starts a scrub; the sent channel is closed when it is done
}

func newIntegrity() *integrity {
	g := &integrity{changed: make(chan struct{}), scrubNow: make(chan chan<- struct{})}
	g.answering, g.end = context.WithCancelCause(context.Background())
	return g
}

const (
	// scrubEvery is how often a node verifies its own records.
	scrubEvery = 30 * time.Second
	// peerTimeout bounds a call to another node.
	peerTimeout = 2 * time.Second
	// ringsPerCheck and bytesPerCheck bound the rings compared per check.
	ringsPerCheck = 64
	bytesPerCheck = 8 << 20
)

// Diverged returns an [ErrDiverged] while this node's state is known to be wrong.
func (s *Store) Diverged() error {
	s.integrity.mu.Lock()
	defer s.integrity.mu.Unlock()
	return s.integrity.cause
}

// Serving returns nil when this node may answer from its state, and otherwise
// [ErrNotReady] or [ErrDiverged].
func (s *Store) Serving() error {
	if !s.IsReady() && !s.stale.Load() {
		return ErrNotReady
	}
	return cmp.Or(s.Diverged(), s.follow.err())
}

// ServingChanged is closed when the result of Serving may have changed.
func (s *Store) ServingChanged() <-chan struct{} {
	s.integrity.mu.Lock()
	defer s.integrity.mu.Unlock()
	return s.integrity.changed
}

// Answering returns a context that ends when this node stops answering because its state
// is found wrong or old; its cause is then an [ErrDiverged] or an [ErrNotReady]. A stream
// calls it before Serving, so that no change between the two is missed.
func (s *Store) Answering() context.Context {
	s.integrity.mu.Lock()
	defer s.integrity.mu.Unlock()
	return s.integrity.answering
}

func (g *integrity) set(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cause = cause
	g.wakeLocked(cause)
}

// wake makes the waiters of ServingChanged call Serving again. A cause, if not nil, ends
// Answering.
func (g *integrity) wake(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wakeLocked(cause)
}

func (g *integrity) wakeLocked(cause error) {
	if cause != nil {
		g.end(cause)
		g.answering, g.end = context.WithCancelCause(context.Background())
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// awaitNotDiverged waits until Diverged returns nil; false if ctx ended first.
func (s *Store) awaitNotDiverged(ctx context.Context) bool {
	for {
		changed := s.ServingChanged()
		if s.Diverged() == nil {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// checkLoop runs on the leader. It commits a check entry if entries were applied
// since the last one.
func (s *Store) checkLoop(l *leadership) {
	if s.cfg.CheckInterval < 0 {
		return
	}
	for pause(l.ctx, s.cfg.CheckInterval) {
		if s.machine.LastMark().Index == s.State().Index() {
			continue
		}
		_, err := s.propose(l.ctx, &fsmpb.Command{Op: &fsmpb.Command_Check{Check: &fsmpb.Check{}}})
		if err != nil && l.ctx.Err() == nil {
			s.log.Debug("could not commit a check entry", "error", err)
		}
	}
}

// integrityLoop compares with the other nodes at each mark, and scrubs.
func (s *Store) integrityLoop(ctx context.Context) {
	scrub := time.NewTicker(scrubEvery)
	defer scrub.Stop()
	marks := make(chan fsm.Mark)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.followMarks(ctx, marks) })
	for {
		var finding error
		var done chan<- struct{}
		var majority []raft.Server
		select {
		case mark := <-marks:
			if !s.isCurrent(mark) {
				continue
			}
			majority, finding = s.compare(ctx, mark)
			if !s.isCurrent(mark) {
				finding = nil // the state was replaced meanwhile
			}
		case <-scrub.C:
			finding = s.State().Verify(ctx)
		case done = <-s.integrity.scrubNow:
			finding = s.State().Verify(ctx)
		case <-ctx.Done():
			return
		}
		if finding != nil && ctx.Err() == nil {
			s.reinstall(ctx, finding, majority)
		}
		if done != nil {
			close(done)
		}
	}
}

// isCurrent reports whether the mark is one of the current state. Marks from
// before a reinstallation or an installed snapshot are not.
func (s *Store) isCurrent(mark fsm.Mark) bool {
	digest, ok := s.machine.Mark(mark.Index)
	return ok && digest == mark.Digest
}

// followMarks sends each new mark, and skips those that come while it sends.
func (s *Store) followMarks(ctx context.Context, out chan<- fsm.Mark) {
	var last uint64
	for {
		mark, err := s.machine.WaitMark(ctx, last)
		if err != nil {
			return
		}
		last = mark.Index
		select {
		case out <- mark:
		case <-ctx.Done():
			return
		}
	}
}

// compare compares this node's digests with the other nodes' at the mark. If a
// majority differs, it returns that finding and the nodes of the majority.
func (s *Store) compare(ctx context.Context, mark fsm.Mark) (majority []raft.Server, finding error) {
	servers, _, err := s.configuration()
	if err != nil {
		return nil, nil
	}
	rings, err := s.ringsToCompare()
	if err != nil {
		return nil, err
	}
	responses := s.checkPeers(ctx, servers, CheckRequest{Index: mark.Index, Rings: rings})
	result := responses.compare(mark.Digest, func(r CheckResponse) (uint64, bool) { return r.Digest, r.Known })
	what := fmt.Sprintf("state digest at index %d", mark.Index)
	for _, ring := range rings {
		if result.agreement == inMinority {
			break
		}
		ringResult := responses.compare(ring.Digest, func(r CheckResponse) (uint64, bool) { return r.ring(ring) })
		if ringResult.agreement != agreed {
			result, what = ringResult, fmt.Sprintf("ring of group %q with fingerprint %016x", ring.Group, ring.Fingerprint)
		}
	}
	s.report(result, what)
	switch result.agreement {
	case inMinority:
		return result.others, fmt.Errorf("%s: this node has %016x, %s %016x", what, result.own, names(result.others), result.other)
	case undecided: // the node's own records can still tell
		return nil, s.State().Verify(ctx)
	}
	return nil, nil
}

// report counts a result, and logs a difference that does not concern this node
// or that no majority decides, the latter once.
func (s *Store) report(c comparison, what string) {
	s.counters.checks[c.agreement].Add(1)
	text := ""
	if c.agreement == undecided {
		text = fmt.Sprintf("%s: this node has %016x, %s %016x; there is no majority for either", what, c.own, names(c.others), c.other)
	}
	s.integrity.mu.Lock()
	before := s.integrity.undecided
	s.integrity.undecided = text
	s.integrity.mu.Unlock()
	switch {
	case text != "" && before == "":
		s.log.Error("nodes differ and there is no majority", "compared", what, "digest", hex16(c.own), "nodes", names(c.others), "their_digest", hex16(c.other))
	case c.agreement == inMajority:
		s.log.Warn("another node differs from the majority", "compared", what, "digest", hex16(c.own), "nodes", names(c.others), "their_digest", hex16(c.other))
	}
}

func hex16(n uint64) string { return fmt.Sprintf("%016x", n) }

// checkPeers sends the request to all other nodes at once.
func (s *Store) checkPeers(ctx context.Context, servers []raft.Server, req CheckRequest) checkResponses {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	responses := checkResponses{self: raft.ServerID(s.cfg.ID), servers: servers, byID: make(map[raft.ServerID]CheckResponse)}
	var mu sync.Mutex // guards byID
	s.eachPeer(servers, func(server raft.Server, node Target) {
		r, err := s.cfg.Peers.Check(ctx, node, req)
		if err != nil || r.Version != fsm.DigestVersion {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		responses.byID[server.ID] = r
	})
	return responses
}

// ringsToCompare returns the digests of the next cached rings, after it verified
// that their points did not change in memory. A ring's digest is computed here
// and not when the ring is built, because it costs more than most changes.
func (s *Store) ringsToCompare() ([]RingDigest, error) {
	s.integrity.mu.Lock()
	from := s.integrity.nextGroup
	s.integrity.mu.Unlock()
	views, next := s.rings.Some(from, ringsPerCheck, bytesPerCheck)
	s.integrity.mu.Lock()
	s.integrity.nextGroup = next
	s.integrity.mu.Unlock()
	digests := make([]RingDigest, 0, len(views))
	for _, group := range slices.Sorted(maps.Keys(views)) {
		v := views[group]
		if !v.Ring.Verify() {
			return digests, fmt.Errorf("%w: ring of group %q at revision %d", fsm.ErrDamaged, group, v.Revision)
		}
		digests = append(digests, RingDigest{Group: group, Fingerprint: v.Fingerprint, Digest: v.Ring.Digest()})
	}
	return digests, nil
}

// Check answers another node's request. It waits until this node has applied the
// index.
func (s *Store) Check(ctx context.Context, req CheckRequest) (CheckResponse, error) {
	if len(req.Rings) > ringsPerCheck {
		return CheckResponse{}, &fsm.FieldError{Field: "rings", Limit: fmt.Sprintf("at most %d", ringsPerCheck), Got: fmt.Sprint(len(req.Rings))}
	}
	resp := CheckResponse{Version: fsm.DigestVersion}
	if s.Diverged() != nil {
		return resp, nil // a wrong digest must not count
	}
	if _, err := s.WaitIndex(ctx, req.Index); err != nil {
		return resp, err
	}
	resp.Digest, resp.Known = s.machine.Mark(req.Index)
	for _, r := range req.Rings {
		if v := s.rings.Peek(r.Group); v != nil && v.Fingerprint == r.Fingerprint {
			r.Digest = v.Ring.Digest()
			resp.Rings = append(resp.Rings, r)
		}
	}
	return resp, nil
}

// alarms are the conditions of this node that an operator should know of.
func (s *Store) alarms() []string {
	var out []string
	if s.cfg.Alarms != nil {
		out = s.cfg.Alarms()
	}
	if err := s.LowDisk(); err != nil {
		out = append(out, err.Error())
	}
	if err := s.follow.err(); err != nil {
		out = append(out, err.Error())
	}
	out = append(out, s.zoneAlarms()...)
	if s.Stale() {
		out = append(out, "no majority was reached since the start: the node answers from what it knew then, and how old that is is not known (-serve-stale-on-start)")
	}
	s.integrity.mu.Lock()
	defer s.integrity.mu.Unlock()
	if s.integrity.cause != nil {
		out = append(out, s.integrity.cause.Error())
	}
	if s.integrity.undecided != "" {
		out = append(out, s.integrity.undecided)
	}
	return out
}
