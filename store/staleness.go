package store

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// staleness measures the lag: the time since this node may have missed an entry.
//
// On a follower, raft's last contact is when it processed the leader's last
// message, and that message may be old: after a pause of the process or of the
// network, messages that waited in sockets come first, from a leader that may be
// deposed. So contacts count only while they come without a gap of an election
// timeout. After a gap, or if this loop itself was late, the follower is
// unconfirmed: its lag grows from the last valid contact until the leader has
// confirmed an index after the gap and this node has applied it.
//
// A leader's contact is the send time of the last heartbeats that a quorum
// answered. For an election timeout after it, the followers elect no one else,
// and the lag is 0. After that the lag is the time since the contact.
//
// So the error of a lag is at most an election timeout and the network latency.
type staleness struct {
	start   time.Time // origin of the times
	timeout time.Duration

	ticked      atomic.Int64 // last run of the loop
	contact     atomic.Int64 // last valid contact
	unconfirmed atomic.Bool

	mu   sync.Mutex // guards acks
	acks map[raft.ServerID]int64
}

func newStaleness(timeout time.Duration) *staleness {
	return &staleness{start: time.Now(), timeout: timeout, acks: make(map[raft.ServerID]int64)}
}

// Now implements rafttransport.Contacts.
func (s *staleness) Now() int64 { return int64(time.Since(s.start)) }

func (s *staleness) since(contact time.Time) int64 {
	if contact.IsZero() {
		return 0 // there was none
	}
	return int64(contact.Sub(s.start))
}

// Acked implements rafttransport.Contacts: the node answered what this leader sent at that time.
func (s *staleness) Acked(id raft.ServerID, sent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acks[id] = max(s.acks[id], sent)
}

// acked is the send time of the last heartbeat that a node answered.
func (s *staleness) acked(id raft.ServerID) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start.Add(time.Duration(s.acks[id]))
}

// quorum is the send time of the last heartbeats that a quorum of the voters,
// this node included, answered.
func (s *staleness) quorum(self raft.ServerID, voters []raft.Server, now int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var at []int64
	for _, v := range voters {
		if v.ID == self {
			at = append(at, now)
		} else {
			at = append(at, s.acks[v.ID])
		}
	}
	if len(at) == 0 {
		return 0
	}
	slices.Sort(at)
	return at[(len(at)-1)/2] // a quorum answered this or later ones
}

// late reports whether the loop has not run for so long that the process may have
// been paused.
func (s *staleness) late(now int64) bool { return now-s.ticked.Load() > int64(s.timeout)/2 }

// lag is the present lag. last is raft's last contact with a leader.
func (s *staleness) lag(leads bool, last time.Time) time.Duration {
	now := s.Now()
	contact := s.contact.Load()
	if leads {
		if age := now - contact; age >= int64(s.timeout) {
			return time.Duration(age)
		}
		return 0
	}
	at := s.since(last)
	if s.unconfirmed.Load() || s.late(now) || at-contact > int64(s.timeout) {
		at = contact
	}
	return time.Duration(now - max(at, contact))
}

// observe updates the last valid contact: from quorum if this node leads, else
// from raft's last contact with a leader. It reports whether the node is unconfirmed.
func (s *staleness) observe(leads bool, quorum int64, last time.Time) (unconfirmed bool) {
	now := s.Now()
	late := s.late(now)
	s.ticked.Store(now)
	if leads {
		s.contact.Store(max(s.contact.Load(), quorum))
		s.unconfirmed.Store(false)
		return false
	}
	contact, at := s.contact.Load(), s.since(last)
	if late || at-contact > int64(s.timeout) {
		s.unconfirmed.Store(true)
	}
	if !s.unconfirmed.Load() {
		s.contact.Store(max(contact, at))
	}
	return s.unconfirmed.Load()
}

// confirmed notes that this node has applied what was committed at that time.
func (s *staleness) confirmed(at int64) {
	s.contact.Store(max(s.contact.Load(), at))
	s.unconfirmed.Store(false)
}

// behind notes that this node last had all committed entries at that time: the
// contacts since then do not count.
func (s *staleness) behind(at int64) {
	s.unconfirmed.Store(true)
	s.contact.Store(at)
}

// stalenessLoop runs ten times per election timeout.
func (s *Store) stalenessLoop(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	confirming := make(chan struct{}, 1) // holds one while a confirmation runs
	tick := time.NewTicker(s.cfg.ElectionTimeout / 10)
	defer tick.Stop()
	for {
		if s.staleness.observe(s.leads(), s.quorumContact(), s.raft.LastContact()) {
			select {
			case confirming <- struct{}{}:
				wg.Go(func() {
					s.confirmContact(ctx)
					<-confirming
				})
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// confirmContact gets an index that the leader confirms from now on, and waits
// until this node has applied it.
func (s *Store) confirmContact(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	at := s.staleness.Now()
	index, err := s.LinearizableIndex(ctx)
	if err == nil {
		_, err = s.WaitIndex(ctx, index)
	}
	if err == nil {
		s.staleness.confirmed(at)
	}
}

// leads reports whether this node leads and has applied everything committed in
// earlier terms.
func (s *Store) leads() bool {
	l := s.lead.Load()
	if l == nil || s.raft.State() != raft.Leader {
		return false
	}
	select {
	case <-l.opened:
		return true
	default:
		return false
	}
}

func (s *Store) quorumContact() int64 {
	if s.raft.State() != raft.Leader {
		return 0
	}
	now := s.staleness.Now() // before the voters are read: the contact of a single voter
	voters, err := s.voters()
	if err != nil {
		return 0
	}
	return s.staleness.quorum(raft.ServerID(s.cfg.ID), voters, now)
}
