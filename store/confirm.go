package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// confirmer confirms indexes: a leader's by a leadership check, a follower's by a request
// to the leader. A call waits for a round that starts after it; one round answers all calls
// that wait for it, and at most one runs at a time.
type confirmer struct {
	s      *Store
	ctx    context.Context        // no call waits after its end
	round  func() (uint64, error) // ends soon after ctx
	leader Target                 // that a follower asks

	// Guarded by Store.confirming:
	running bool
	next    *confirmation // of the next round; nil: no call waits for it
}

type confirmation struct {
	done  chan struct{}
	index uint64 // set before done is closed, like err
	err   error
}

// wait returns the index that a round has confirmed which started after the call.
func (c *confirmer) wait(ctx context.Context) (uint64, error) {
	c.s.confirming.Lock()
	if c.ctx.Err() != nil {
		c.s.confirming.Unlock()
		return 0, ErrNotLeader
	}
	if c.next == nil {
		c.next = &confirmation{done: make(chan struct{})}
		if !c.running {
			c.running = true
			c.s.wg.Go(c.run)
		}
	}
	next := c.next
	c.s.confirming.Unlock()
	select {
	case <-next.done:
		return next.index, next.err
	case <-c.ctx.Done():
		return 0, ErrNotLeader
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for a confirmed index: %w", context.Cause(ctx))
	}
}

// run runs rounds until no call waits for one.
func (c *confirmer) run() {
	for {
		c.s.confirming.Lock()
		next := c.next
		c.next, c.running = nil, next != nil
		c.s.confirming.Unlock()
		if next == nil {
			return
		}
		next.index, next.err = c.round()
		close(next.done)
	}
}

// askLeader returns an index that the leader confirmed after the call. A request to an
// earlier leader delays nobody.
func (s *Store) askLeader(ctx context.Context, leader Target) (uint64, error) {
	c := s.asked.Load()
	if c == nil || c.leader != leader {
		c = &confirmer{s: s, ctx: s.ctx, leader: leader, round: func() (uint64, error) { return s.cfg.Peers.ReadIndex(s.ctx, leader) }}
		s.asked.Store(c)
	}
	return c.wait(ctx)
}

// checkLeadership is one round of a leader. It returns the commit index from before the
// round, which includes every write acknowledged by then, after it asked voters for their
// current term. If a quorum still reports the leader's own, with the leader itself asked
// last, no newer leader had been elected when the round started: a newer one needs the
// votes of a quorum, and each vote raises the voter's term first.
//
// It asks as many voters as it needs, those first that agreed in the round before, and all
// of them when one does not agree or is slow.
func (s *Store) checkLeadership(l *leadership) (index uint64, err error) {
	if observe := s.cfg.Instruments.Confirmed; observe != nil {
		defer func(start time.Time) { observe(time.Since(start), err) }(time.Now())
	}
	index = s.raft.CommitIndex()
	voters, err := s.voters()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(l.ctx, s.cfg.ElectionTimeout)
	defer cancel()
	others := slices.DeleteFunc(slices.Clone(voters), func(v raft.Server) bool { return v.ID == raft.ServerID(s.cfg.ID) })
	need := len(voters)/2 + 1 - (len(voters) - len(others)) // this node is checked below
	slices.SortStableFunc(others, func(a, b raft.Server) int {
		return cmp.Compare(slices.Index(l.agreed, b.ID), slices.Index(l.agreed, a.ID)) // -1: it did not agree
	})
	var agreed []raft.ServerID
	answers := make(chan raft.ServerID, len(others)) // empty: it does not agree
	pending := 0
	ask := func(n int) {
		for _, v := range others[:n] {
			pending++
			s.wg.Go(func() {
				term, err := s.cfg.Peers.Term(ctx, s.target(string(v.Address), string(v.ID)))
				if err != nil || term != l.term {
					v.ID = ""
				}
				answers <- v.ID
			})
		}
		others = others[n:]
	}
	ask(min(need, len(others)))
	slow := time.NewTimer(s.cfg.ElectionTimeout / 50)
	defer slow.Stop()
	for pending > 0 && len(agreed) < need {
		select {
		case id := <-answers:
			if pending--; id != "" {
				agreed = append(agreed, id)
				continue
			}
		case <-slow.C:
		}
		ask(len(others))
	}
	l.agreed = agreed
	if len(agreed) < need || s.raft.CurrentTerm() != l.term || s.raft.State() != raft.Leader {
		return 0, fmt.Errorf("%w: %d of %d voters confirmed term %d", ErrNotLeader, len(agreed), len(voters), l.term)
	}
	return index, nil
}

func (s *Store) voters() ([]raft.Server, error) {
	f := s.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var voters []raft.Server
	for _, server := range f.Configuration().Servers {
		if server.Suffrage == raft.Voter {
			voters = append(voters, server)
		}
	}
	return voters, nil
}
