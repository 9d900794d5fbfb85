package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// progress detects a leader that commits nothing. raft can get there: after a
// leadership transfer that was interrupted at a bad moment, a re-elected leader
// refuses every write as if the transfer went on, while its heartbeats prevent an
// election. Such a node fails, so that another one leads; a restart repairs it.
type progress struct {
	mu    sync.Mutex // guards since
	since time.Time  // when the wait began; zero: no entry waits
}

// entryWaits notes that an entry waits, or was refused because of a transfer.
func (p *progress) entryWaits() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = time.Now()
	}
}

// termBegins restarts the wait: a new term gets the full time.
func (p *progress) termBegins() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.IsZero() {
		p.since = time.Now()
	}
}

// advanced ends the wait.
func (p *progress) advanced() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Time{}
}

// waiting is when the wait began; zero: no entry waits.
func (p *progress) waiting() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since
}

// entryDone notes the outcome of an entry.
func (p *progress) entryDone(err error) {
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		p.entryWaits()
		return
	}
	p.advanced()
}

// stuckLimit is longer than MaxHang, so that nodes with a hanging disk fail first:
// they still answer heartbeats.
func (s *Store) stuckLimit() time.Duration { return s.cfg.MaxHang + s.cfg.MaxHang/2 }

// stuckSteps is how many checks in a row must find the same wait.
const stuckSteps = 10

// stuckCount counts checks, not time, as hangWatch does: after a pause of the process
// one check is late, which proves nothing.
type stuckCount struct {
	since  time.Time
	checks int
}

// check reports whether the same wait was found often enough.
func (c *stuckCount) check(since time.Time) bool {
	if since.IsZero() || !since.Equal(c.since) {
		c.since, c.checks = since, 0
		return false
	}
	c.checks++
	return c.checks >= stuckSteps
}

// progressLoop fails the node if its leadership commits nothing.
func (s *Store) progressLoop(ctx context.Context, term uint64) {
	var count stuckCount
	for pause(ctx, s.stuckLimit()/stuckSteps) {
		if since := s.progress.waiting(); count.check(since) {
			s.fail(fmt.Errorf("%w: leader of term %d, and no entry was committed for %s; another node leads when this one has ended, and a restart repairs it",
				ErrStuck, term, time.Since(since).Round(time.Millisecond)))
			return
		}
	}
}
