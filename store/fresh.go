package store

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// freshness knows since when this node may have missed something: the lag.
//
// A follower's last contact with its leader is when raft took the leader's last
// word, and that word may be old: after the process stood still, or the network
// did, what waited in sockets comes first, from a leader that may be deposed.
// So a contact counts only while contacts come without a gap. After a gap, or
// when this very goroutine was late, the node is in doubt: its lag counts from
// the last contact before, until the leader has confirmed an index after the
// gap and this node has applied it.
//
// A leader hears of itself. Its word counts while a quorum answers: followers
// elect nobody for an election timeout after they heard from it, so for that
// long after it sent what a quorum answered it leads, and its lag is 0. After
// that its lag is the time since.
//
// So a lag is wrong by at most an election timeout and the time that the
// leader's word spends on the wire.
type freshness struct {
	start   time.Time // origin of the times
	timeout time.Duration

	ticked  atomic.Int64 // when the loop last looked
	trusted atomic.Int64 // the last contact that counts
	doubt   atomic.Bool

	mu   sync.Mutex // guards acks
	acks map[raft.ServerID]int64
}

func newFreshness(timeout time.Duration) *freshness {
	return &freshness{start: time.Now(), timeout: timeout, acks: make(map[raft.ServerID]int64)}
}

// Now implements rafttransport.Contacts.
func (f *freshness) Now() int64 { return int64(time.Since(f.start)) }

func (f *freshness) since(contact time.Time) int64 {
	if contact.IsZero() {
		return 0 // there was none
	}
	return int64(contact.Sub(f.start))
}

// Acked implements rafttransport.Contacts: it notes that a node answered this leader's heartbeat sent at that time.
func (f *freshness) Acked(id raft.ServerID, sent int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acks[id] = max(f.acks[id], sent)
}

// quorum is when this leader sent the last of what a quorum of the voters,
// itself included, answered.
func (f *freshness) quorum(self raft.ServerID, voters []raft.Server, now int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var at []int64
	for _, v := range voters {
		if v.ID == self {
			at = append(at, now)
		} else {
			at = append(at, f.acks[v.ID])
		}
	}
	if len(at) == 0 {
		return 0
	}
	slices.Sort(at)
	return at[(len(at)-1)/2] // so many, at[0] to here, need not have answered
}

// late says that the loop has not looked for so long that the process may have
// stood still.
func (f *freshness) late(now int64) bool { return now-f.ticked.Load() > int64(f.timeout)/2 }

// lag is the lag of a node that heard from a leader at contact.
func (f *freshness) lag(leads bool, contact time.Time) time.Duration {
	now := f.Now()
	trusted := f.trusted.Load()
	if leads {
		if age := now - trusted; age >= int64(f.timeout) {
			return time.Duration(age)
		}
		return 0
	}
	at := f.since(contact)
	if f.doubt.Load() || f.late(now) || at-trusted > int64(f.timeout) {
		at = trusted
	}
	return time.Duration(now - max(at, trusted))
}

// look takes note of the present contact; it returns true when the node is in
// doubt. leads says that this node leads and what a quorum answered last.
func (f *freshness) look(leads bool, quorum int64, contact time.Time) (doubt bool) {
	now := f.Now()
	late := f.late(now)
	f.ticked.Store(now)
	if leads {
		f.trusted.Store(max(f.trusted.Load(), quorum))
		f.doubt.Store(false)
		return false
	}
	trusted, at := f.trusted.Load(), f.since(contact)
	if late || at-trusted > int64(f.timeout) {
		f.doubt.Store(true)
	}
	if !f.doubt.Load() {
		f.trusted.Store(max(trusted, at))
	}
	return f.doubt.Load()
}

// confirmed ends the doubt: this node has applied what was committed at that time.
func (f *freshness) confirmed(at int64) {
	f.trusted.Store(max(f.trusted.Load(), at))
	f.doubt.Store(false)
}

// behind notes that this node does not follow: it had applied all at that time,
// and the leader's word since has told it nothing.
func (f *freshness) behind(at int64) {
	f.doubt.Store(true)
	f.trusted.Store(at)
}

// freshLoop looks ten times in an election timeout.
func (s *Store) freshLoop(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	asked := make(chan struct{}, 1) // holds one while a question is under way
	tick := time.NewTicker(s.cfg.ElectionTimeout / 10)
	defer tick.Stop()
	for {
		if s.fresh.look(s.leads(), s.quorumContact(), s.raft.LastContact()) {
			select {
			case asked <- struct{}{}:
				wg.Go(func() {
					s.endDoubt(ctx)
					<-asked
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

// endDoubt asks for an index that the leader confirms from now on, and applies up to it.
func (s *Store) endDoubt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	at := s.fresh.Now()
	index, err := s.LinearizableIndex(ctx)
	if err == nil {
		_, err = s.WaitIndex(ctx, index)
	}
	if err == nil {
		s.fresh.confirmed(at)
	}
}

// leads says that this node leads and has applied all that was committed
// before its term.
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
	now := s.fresh.Now() // before the voters are read: a lone voter hears itself then
	voters, err := s.voters()
	if err != nil {
		return 0
	}
	return s.fresh.quorum(raft.ServerID(s.cfg.ID), voters, now)
}
