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

// The tripwire. While the log moves, the leader commits a check entry every
// CheckInterval; every node notes the digest that its state has at exactly that
// entry, asks the others for theirs, and judges itself: when a majority of the
// voters agrees on another digest, this node is the wrong one, leader or not. A
// few rings that are kept are compared with it in turn: those of one group with one
// fingerprint have one digest. Apart
// from that each node computes its records' digests anew now and then, which
// finds memory that changed by itself, also on a node that is alone.
//
// A node that is wrong answers nothing, gives up leadership and installs the
// state of one of the majority: see reinstall.
type integrity struct {
	mu         sync.Mutex    // guards the rest
	cause      error         // why this node answers nothing; nil: it answers
	undecided  string        // who differs, while no majority decides
	changed    chan struct{} // closed and replaced when the node begins or ends to answer
	nextGroup  string        // the first group whose ring is compared next
	reinstalls []time.Time

	scrubNow chan chan<- struct{} // tests do not wait for the interval, and are told when it is done
}

func newIntegrity() *integrity {
	return &integrity{changed: make(chan struct{}), scrubNow: make(chan chan<- struct{})}
}

const (
	// scrubEvery is how often a node computes its records' digests anew.
	scrubEvery = 30 * time.Second
	// askTimeout bounds the wait for a node's digest.
	askTimeout = 2 * time.Second
	// ringsPerCheck and bytesPerCheck bound the rings compared at a time.
	ringsPerCheck = 64
	bytesPerCheck = 8 << 20
)

// Diverged says why this node answers nothing although it has caught up; nil
// when it answers. The error is an [ErrDiverged].
func (s *Store) Diverged() error {
	s.integrity.mu.Lock()
	defer s.integrity.mu.Unlock()
	return s.integrity.cause
}

// Serving returns nil when this node may answer from its state, and otherwise
// [ErrNotReady] or [ErrDiverged].
func (s *Store) Serving() error {
	if !s.IsReady() {
		return ErrNotReady
	}
	return cmp.Or(s.Diverged(), s.follow.err())
}

// ServingChanged is closed at the next change of what Serving answers.
func (s *Store) ServingChanged() <-chan struct{} {
	s.integrity.mu.Lock()
	defer s.integrity.mu.Unlock()
	return s.integrity.changed
}

func (g *integrity) set(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cause = cause
	close(g.changed)
	g.changed = make(chan struct{})
}

// wake tells those who wait for a change to look again.
func (g *integrity) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.changed)
	g.changed = make(chan struct{})
}

// awaitSound waits until the state is not known to be wrong; false when ctx ended.
func (s *Store) awaitSound(ctx context.Context) bool {
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

// checkLoop is the leader's: it commits a check entry when something was
// applied since the last one.
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

// integrityLoop checks this node, at every mark and now and then by itself.
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
		var sound []raft.Server
		select {
		case mark := <-marks:
			if !s.stands(mark) {
				continue
			}
			sound, finding = s.compare(ctx, mark)
			if !s.stands(mark) {
				finding = nil // it is about a state that is gone
			}
		case <-scrub.C:
			finding = s.State().Verify(ctx)
		case done = <-s.integrity.scrubNow:
			finding = s.State().Verify(ctx)
		case <-ctx.Done():
			return
		}
		if finding != nil && ctx.Err() == nil {
			s.reinstall(ctx, finding, sound)
		}
		if done != nil {
			close(done)
		}
	}
}

// stands says that the mark is one of the present state. One that was noted
// before the state was replaced, by a reinstallation or by a leader's snapshot,
// says nothing about the state that this node answers from now.
func (s *Store) stands(mark fsm.Mark) bool {
	digest, ok := s.machine.Mark(mark.Index)
	return ok && digest == mark.Digest
}

// followMarks hands the newest mark over, again and again.
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

// compare asks the other nodes for what they had at the mark. It returns why
// this node is wrong, if it is, and the nodes that are right.
func (s *Store) compare(ctx context.Context, mark fsm.Mark) (sound []raft.Server, finding error) {
	servers, _, err := s.configuration()
	if err != nil {
		return nil, nil
	}
	rings, err := s.ringsToCompare()
	if err != nil {
		return nil, err
	}
	b := ballot{self: raft.ServerID(s.cfg.ID), servers: servers}
	b.answers = s.askAll(ctx, servers, Question{Index: mark.Index, Rings: rings})
	result := b.judge(mark.Digest, func(a Answer) (uint64, bool) { return a.Digest, a.Known })
	what := fmt.Sprintf("state digest at index %d", mark.Index)
	for _, r := range rings {
		if result.verdict == wrong {
			break
		}
		ringResult := b.judge(r.Digest, func(a Answer) (uint64, bool) { return a.ring(r) })
		if ringResult.verdict != agreed {
			result, what = ringResult, fmt.Sprintf("ring of group %q with fingerprint %016x", r.Group, r.Fingerprint)
		}
	}
	s.report(result, what)
	if result.verdict == wrong {
		return result.others, fmt.Errorf("%s: this node has %016x, %s %016x", what, result.own, names(result.others), result.other)
	}
	if result.verdict == undecided { // then its own word counts
		return nil, s.State().Verify(ctx)
	}
	return nil, nil
}

// report logs a difference that is another node's, or nobody's yet, once.
func (s *Store) report(r result, what string) {
	s.counters.checks[r.verdict].Add(1)
	text := ""
	if r.verdict == undecided {
		text = fmt.Sprintf("%s: this node has %016x, %s %016x, and no majority decides which is right", what, r.own, names(r.others), r.other)
	}
	s.integrity.mu.Lock()
	before := s.integrity.undecided
	s.integrity.undecided = text
	s.integrity.mu.Unlock()
	switch {
	case text != "" && before == "":
		s.log.Error("nodes differ", "what", what, "own", hex16(r.own), "others", names(r.others), "theirs", hex16(r.other))
	case r.verdict == inMajority:
		s.log.Warn("another node differs from the majority", "what", what, "own", hex16(r.own), "others", names(r.others), "theirs", hex16(r.other))
	}
}

func hex16(n uint64) string { return fmt.Sprintf("%016x", n) }

func (s *Store) askAll(ctx context.Context, servers []raft.Server, q Question) map[raft.ServerID]Answer {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers := make(map[raft.ServerID]Answer)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, server := range servers {
		if server.ID == raft.ServerID(s.cfg.ID) {
			continue
		}
		wg.Go(func() {
			a, err := s.cfg.Peers.Check(ctx, s.target(string(server.Address), string(server.ID)), q)
			if err != nil || a.Version != fsm.DigestVersion {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[server.ID] = a
		})
	}
	wg.Wait()
	return answers
}

// ringsToCompare takes the next few rings that are kept, having verified that
// their points did not change in memory. A ring's digest is taken here for the
// first time, because it costs more than most changes.
func (s *Store) ringsToCompare() ([]RingMark, error) {
	s.integrity.mu.Lock()
	from := s.integrity.nextGroup
	s.integrity.mu.Unlock()
	views, next := s.rings.Some(from, ringsPerCheck, bytesPerCheck)
	s.integrity.mu.Lock()
	s.integrity.nextGroup = next
	s.integrity.mu.Unlock()
	marks := make([]RingMark, 0, len(views))
	for _, group := range slices.Sorted(maps.Keys(views)) {
		v := views[group]
		if !v.Ring.Verify() {
			return marks, fmt.Errorf("%w: ring of group %q at revision %d", fsm.ErrDamaged, group, v.Revision)
		}
		marks = append(marks, RingMark{Group: group, Fingerprint: v.Fingerprint, Digest: v.Ring.Digest()})
	}
	return marks, nil
}

// Answer tells another node what this one had at stated points of the log. It
// waits until this node has come to the index.
func (s *Store) Answer(ctx context.Context, q Question) (Answer, error) {
	if len(q.Rings) > ringsPerCheck {
		return Answer{}, &fsm.FieldError{Field: "rings", Limit: fmt.Sprintf("at most %d", ringsPerCheck), Got: fmt.Sprint(len(q.Rings))}
	}
	a := Answer{Version: fsm.DigestVersion}
	if s.Diverged() != nil {
		return a, nil // it knows nothing that counts
	}
	if _, err := s.WaitIndex(ctx, q.Index); err != nil {
		return a, err
	}
	a.Digest, a.Known = s.machine.Mark(q.Index)
	for _, r := range q.Rings {
		if v := s.rings.Peek(r.Group); v != nil && v.Fingerprint == r.Fingerprint {
			r.Digest = v.Ring.Digest()
			a.Rings = append(a.Rings, r)
		}
	}
	return a, nil
}

// alarms are what an operator should know of this node.
func (s *Store) alarms() []string {
	var out []string
	if err := s.LowDisk(); err != nil {
		out = append(out, err.Error())
	}
	if err := s.follow.err(); err != nil {
		out = append(out, err.Error())
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
