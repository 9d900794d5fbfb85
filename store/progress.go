package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// progress notices a leader that leads and commits nothing. Raft can get there:
// after a transfer of leadership that was interrupted at a bad moment, one that
// is elected again refuses every write as if the transfer went on, while its
// heartbeats keep the others from an election. Such a node ends, and another
// leads; a restart clears what raft got wrong.
type progress struct {
	mu    sync.Mutex // guards since
	since time.Time  // since when something waits in vain; zero: nothing does
}

// waits notes that an entry waits, or was refused because of a transfer.
func (p *progress) waits() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = time.Now()
	}
}

// begins notes that a new term does: what waits gets its time again.
func (p *progress) begins() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.IsZero() {
		p.since = time.Now()
	}
}

// moves notes that raft has answered.
func (p *progress) moves() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Time{}
}

// waiting is since when something has waited in vain; zero: nothing does.
func (p *progress) waiting() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since
}

// answered notes the outcome of an entry.
func (p *progress) answered(err error) {
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		p.waits()
		return
	}
	p.moves()
}

// stuckLimit is longer than MaxHang, so that nodes whose disk hangs end first:
// their heartbeats are answered while it does.
func (s *Store) stuckLimit() time.Duration { return s.cfg.MaxHang + s.cfg.MaxHang/2 }

// stuckSteps is how many times in a row the same thing must be seen waiting.
const stuckSteps = 10

// stuckCount counts looks, not time, for the reason that hangWatch does: a
// leader whose process stood still comes back to one look that comes late.
type stuckCount struct {
	since time.Time
	looks int
}

// look returns true when what waits has been seen waiting long enough.
func (c *stuckCount) look(since time.Time) bool {
	if since.IsZero() || !since.Equal(c.since) {
		c.since, c.looks = since, 0
		return false
	}
	c.looks++
	return c.looks >= stuckSteps
}

// watchProgress ends the node when its leadership leads nowhere.
func (s *Store) watchProgress(ctx context.Context, term uint64) {
	var count stuckCount
	for pause(ctx, s.stuckLimit()/stuckSteps) {
		if since := s.progress.waiting(); count.look(since) {
			s.fail(fmt.Errorf("%w: leader of term %d, and no entry was committed for %s; another node leads when this one has ended, and a restart mends it",
				ErrStuck, term, time.Since(since).Round(time.Millisecond)))
			return
		}
	}
}
