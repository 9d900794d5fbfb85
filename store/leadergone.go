package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// goneStep is between one follower's election and the next's, by the order
	// of their ids, after the leader's process went. At once they would split
	// the votes; one step is enough to win an election.
	goneStep = 150 * time.Millisecond
	// probeTimeout bounds the question whether the leader still listens.
	probeTimeout = time.Second
	// probeEvery is the first pause between two questions, which doubles up to
	// maxProbeWait. It bounds how often a leader is asked, whoever ends connections.
	probeEvery   = 20 * time.Millisecond
	maxProbeWait = time.Second
)

// goneLoop notices that the leader's process has ended, which raft finds out by
// waiting: all its followers have to miss it for up to twice the election
// timeout, and some longer, before one is elected. When a raft connection ends,
// this node knocks at the leader's door. That nobody listens there any more is
// the word of the leader's own machine; silence, a machine that is gone, and
// every other failure say nothing, and raft waits as ever.
//
// Raft then is told what a leader says who hands over: stand for election now.
func (s *Store) goneLoop(ctx context.Context) {
	for {
		select {
		case <-s.streamEnded:
		case <-ctx.Done():
			return
		}
		s.knock(ctx, time.Now())
	}
}

// knock asks a few times, because connections may end before the listener
// does, until the leader is heard of again.
func (s *Store) knock(ctx context.Context, since time.Time) {
	leader, id := s.lastLeader()
	steps, stands := s.turn(id)
	if !stands {
		return
	}
	for wait := probeEvery; wait < maxProbeWait && s.misses(leader); wait *= 2 {
		if s.refuses(string(leader)) {
			if !pause(ctx, s.silence()+time.Duration(steps)*goneStep) {
				return
			}
			if s.misses(leader) && !s.raft.LastContact().After(since) && s.refuses(string(leader)) && !s.knowsNewerTerm(ctx, id) {
				s.log.Info("the leader's process has ended; standing for election", "leader", string(id))
				s.transport.Campaign()
			}
			return
		}
		if !pause(ctx, wait) || s.raft.LastContact().After(since) {
			return
		}
	}
}

// knowsNewerTerm asks the voters that are left whether an election is on, or
// over: a leader that stops hands over first, and its successor may have been
// elected when this node has not heard of it yet. To stand against it would take
// it down, because who stands at once asks nobody before (no pre-vote).
func (s *Store) knowsNewerTerm(ctx context.Context, gone raft.ServerID) bool {
	voters, err := s.voters()
	if err != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, goneStep)
	defer cancel()
	term := s.raft.CurrentTerm()
	var newer atomic.Bool
	var asked sync.WaitGroup
	for _, v := range voters {
		if v.ID == gone || v.ID == raft.ServerID(s.cfg.ID) {
			continue
		}
		asked.Go(func() {
			theirs, err := s.cfg.Peers.Term(ctx, s.target(string(v.Address), string(v.ID)))
			if err == nil && theirs > term {
				newer.Store(true)
			}
		})
	}
	asked.Wait()
	return newer.Load() || s.raft.CurrentTerm() != term
}

// silence is for how long nothing is heard of a leader that is gone: it would
// have sent a heartbeat meanwhile, which it does every tenth to fifth of the
// election timeout. A firewall that refuses new connections ends no leader.
func (s *Store) silence() time.Duration { return s.cfg.ElectionTimeout / 4 }

// misses says that this node follows that leader, or none.
func (s *Store) misses(leader raft.ServerAddress) bool {
	now, _ := s.raft.LeaderWithID()
	return leader != "" && s.raft.State() == raft.Follower && (now == "" || now == leader)
}

// lastLeader is the leader, or the one before if another follower was quicker
// to stand for election and lost it.
func (s *Store) lastLeader() (raft.ServerAddress, raft.ServerID) {
	leader, id := s.raft.LeaderWithID()
	if last, ok := s.transport.LastLeader(); leader == "" && ok && s.raft.CurrentTerm() <= last.Term+1 {
		return last.Addr, last.ID
	}
	return leader, id
}

// lostStream is called when a raft connection to this node ends.
func (s *Store) lostStream() {
	select {
	case s.streamEnded <- struct{}{}:
	default:
	}
}

// turn is this node's place among the voters that are left, by id.
func (s *Store) turn(leader raft.ServerID) (steps int, stands bool) {
	voters, err := s.voters()
	if err != nil {
		return 0, false
	}
	var ids []raft.ServerID
	for _, v := range voters {
		if v.ID != leader {
			ids = append(ids, v.ID)
		}
	}
	slices.Sort(ids)
	steps, stands = slices.BinarySearch(ids, raft.ServerID(s.cfg.ID))
	return steps, stands
}

// refuses says that nobody listens at an address.
func (s *Store) refuses(addr string) bool {
	c, err := s.cfg.DialRaft(addr, probeTimeout)
	if err == nil {
		_ = c.Close() // it lives
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
