package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// confirmer runs leadership checks. A caller waits for a round that starts after
// its call; one round serves all callers that wait for it, and at most one runs at
// a time.
//
// A round asks voters for their current term. If a quorum still reports the
// leader's own, with the leader itself asked last, no newer leader had been elected
// when the round started: a newer one needs the votes of a quorum, and each vote
// raises the voter's term first.
type confirmer struct {
	check   func(*leadership) error             // one round
	observe func(took time.Duration, err error) // may be nil

	mu   sync.Mutex // guards next
	next *round     // not started yet; nil: no caller waits
	kick chan struct{}
}

type round struct {
	lead *leadership
	done chan struct{}
	err  error // set before done is closed
}

func newConfirmer(check func(*leadership) error) *confirmer {
	return &confirmer{check: check, kick: make(chan struct{}, 1)}
}

// wait returns nil once a round that started after the call has confirmed l.
func (c *confirmer) wait(ctx context.Context, l *leadership) error {
	c.mu.Lock()
	if l.ctx.Err() != nil {
		// Under the lock: a round of a later leadership may wait here, which this call
		// must not replace.
		c.mu.Unlock()
		return ErrNotLeader
	}
	if c.next == nil || c.next.lead != l {
		c.next = &round{lead: l, done: make(chan struct{})}
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
	r := c.next
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-l.ctx.Done():
		return ErrNotLeader
	case <-ctx.Done():
		return fmt.Errorf("leadership check: %w", context.Cause(ctx))
	}
}

// loop runs the rounds.
func (c *confirmer) loop(ctx context.Context) {
	for {
		select {
		case <-c.kick:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		r := c.next
		c.next = nil
		c.mu.Unlock()
		if r == nil {
			continue
		}
		start := time.Now()
		r.err = c.check(r.lead)
		close(r.done)
		if c.observe != nil {
			c.observe(time.Since(start), r.err)
		}
	}
}

// checkLeadership is one round. It asks as many voters as it needs, those first that agreed
// in the round before, and all of them when one does not agree or is slow. Only one round
// runs at a time.
func (s *Store) checkLeadership(l *leadership) error {
	voters, err := s.voters()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(l.ctx, s.cfg.ElectionTimeout,
		fmt.Errorf("%w: no quorum confirmed the term", ErrNotLeader))
	defer cancel()
	others := slices.DeleteFunc(slices.Clone(voters), func(v raft.Server) bool { return v.ID == raft.ServerID(s.cfg.ID) })
	need := len(voters)/2 + 1 - (len(voters) - len(others)) // this node is checked below
	slices.SortStableFunc(others, func(a, b raft.Server) int {
		return cmp.Compare(slices.Index(s.agreed, b.ID), slices.Index(s.agreed, a.ID)) // -1: it did not agree
	})
	var agreed []raft.ServerID
	answers := make(chan raft.ServerID, len(others)) // empty: it does not agree
	pending := 0
	ask := func(n int) {
		for _, v := range others[:n] {
			pending++
			go func() {
				term, err := s.cfg.Peers.Term(ctx, s.target(string(v.Address), string(v.ID)))
				if err != nil || term != l.term {
					v.ID = ""
				}
				answers <- v.ID
			}()
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
	s.agreed = agreed
	if len(agreed) < need || s.raft.CurrentTerm() != l.term || s.raft.State() != raft.Leader {
		return fmt.Errorf("%w: %d of %d voters confirmed term %d", ErrNotLeader, len(agreed), len(voters), l.term)
	}
	return nil
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
