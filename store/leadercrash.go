package store

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// campaignStep separates the campaigns of two followers after a crash of the
	// leader. Simultaneous campaigns would split the votes; an election takes less
	// than one step.
	campaignStep = 150 * time.Millisecond
	// probeTimeout bounds the dial of one probe.
	probeTimeout = time.Second
	// probeEvery is the pause after the first probe. It doubles up to maxProbeWait,
	// which bounds the rate of probes however many connections end.
	probeEvery   = 20 * time.Millisecond
	maxProbeWait = time.Second
)

// leaderCrashLoop detects that the leader's process has ended. Raft itself needs
// up to twice the election timeout for that. When a raft connection ends, this
// node dials the leader. A refused connection comes from the leader's own machine
// and proves that nothing listens there; a timeout or any other failure proves
// nothing, and raft's timeout decides.
//
// This node then campaigns as after a leadership transfer, without a pre-vote.
func (s *Store) leaderCrashLoop(ctx context.Context) {
	for {
		select {
		case <-s.streamEnded:
		case <-ctx.Done():
			return
		}
		s.probeLeader(ctx, time.Now())
	}
}

// probeLeader dials the leader several times, because connections may end before
// the listener closes, until there is a contact after since. It campaigns if the
// leader's process has ended.
func (s *Store) probeLeader(ctx context.Context, since time.Time) {
	leader, id := s.lastLeader()
	steps, votes := s.campaignOrder(id)
	if !votes {
		return
	}
	for wait := probeEvery; wait < maxProbeWait && s.hasNoOtherLeader(leader); wait *= 2 {
		if s.refusesConnections(ctx, string(leader)) {
			if !pause(ctx, s.maxHeartbeatGap()+time.Duration(steps)*campaignStep) {
				return
			}
			if s.hasNoOtherLeader(leader) && !s.raft.LastContact().After(since) && s.refusesConnections(ctx, string(leader)) && !s.knowsNewerTerm(ctx, id) {
				s.log.Info("the leader's process has ended; campaigning", "leader", string(id))
				s.transport.Campaign()
			}
			return
		}
		if !pause(ctx, wait) || s.raft.LastContact().After(since) {
			return
		}
	}
}

// knowsNewerTerm asks the other voters for their terms. A leader that stops hands
// over first, and this node may not know its successor yet. A campaign without a
// pre-vote would depose the successor.
func (s *Store) knowsNewerTerm(ctx context.Context, crashed raft.ServerID) bool {
	voters, err := s.voters()
	if err != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, campaignStep)
	defer cancel()
	term := s.raft.CurrentTerm()
	var newer atomic.Bool
	s.eachPeer(withoutServer(voters, crashed), func(_ raft.Server, node Target) {
		if theirs, err := s.cfg.Peers.Term(ctx, node); err == nil && theirs > term {
			newer.Store(true)
		}
	})
	return newer.Load() || s.raft.CurrentTerm() != term
}

// campaignAlone makes this node the leader if it is the only voter, which would
// otherwise wait for an election timeout.
func (s *Store) campaignAlone() {
	voters, err := s.voters()
	if err == nil && len(voters) == 1 && string(voters[0].ID) == s.cfg.ID && s.raft.State() == raft.Follower {
		s.transport.Campaign()
	}
}

// maxHeartbeatGap is longer than the time between two heartbeats of a leader, a
// tenth to a fifth of the election timeout. A running leader behind a firewall
// that refuses new connections is heard within it.
func (s *Store) maxHeartbeatGap() time.Duration { return s.cfg.ElectionTimeout / 4 }

// hasNoOtherLeader reports whether this node follows that leader, or none.
func (s *Store) hasNoOtherLeader(leader raft.ServerAddress) bool {
	current, _ := s.raft.LeaderWithID()
	return leader != "" && s.raft.State() == raft.Follower && (current == "" || current == leader)
}

// lastLeader is the leader, or the previous one if another follower campaigned
// first and lost.
func (s *Store) lastLeader() (raft.ServerAddress, raft.ServerID) {
	leader, id := s.raft.LeaderWithID()
	if last, ok := s.transport.LastLeader(); leader == "" && ok && s.raft.CurrentTerm() <= last.Term+1 {
		return last.Addr, last.ID
	}
	return leader, id
}

// lostStream is called when a raft connection to this node ends. It does not block.
func (s *Store) lostStream() {
	select {
	case s.streamEnded <- struct{}{}:
	default:
	}
}

// campaignOrder is this node's position among the voters other than the leader, by
// id; false if it is no voter.
func (s *Store) campaignOrder(leader raft.ServerID) (steps int, votes bool) {
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
	return slices.BinarySearch(ids, raft.ServerID(s.cfg.ID))
}

// refusesConnections reports whether nothing listens at an address.
func (s *Store) refusesConnections(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := s.cfg.DialRaft(ctx, addr)
	if err == nil {
		_ = c.Close() // it listens
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
