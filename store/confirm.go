package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// confirmer runs leadership checks. A caller waits for a round that starts after
// its call; one round serves all callers that wait for it, and at most one runs at
// a time.
//
// A round asks every voter for its current term. If a quorum still reports the
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

// checkLeadership is one round.
func (s *Store) checkLeadership(l *leadership) error {
	voters, err := s.voters()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(l.ctx, s.cfg.ElectionTimeout,
		fmt.Errorf("%w: no quorum confirmed the term", ErrNotLeader))
	defer cancel()
	need := len(voters)/2 + 1
	agree, pending := 0, 0
	answers := make(chan bool, len(voters))
	for _, v := range voters {
		if v.ID == raft.ServerID(s.cfg.ID) {
			need-- // this node, checked below
			continue
		}
		pending++
		go func() {
			term, err := s.cfg.Peers.Term(ctx, s.target(string(v.Address), string(v.ID)))
			answers <- err == nil && term == l.term
		}()
	}
	for ; pending > 0 && agree < need; pending-- {
		if <-answers {
			agree++
		}
	}
	if agree < need || s.raft.CurrentTerm() != l.term || s.raft.State() != raft.Leader {
		return fmt.Errorf("%w: %d of %d voters confirmed term %d", ErrNotLeader, agree, len(voters), l.term)
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
