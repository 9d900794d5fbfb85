package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// voterTimeout bounds one call to one voter.
const voterTimeout = 500 * time.Millisecond

var errNoSuccessor = errors.New("no other voter answers")

// handOver transfers leadership to the voter with the highest applied index of
// those that answer. raft itself would choose by the next index, which after an
// election is the same for all voters, also for one that is down.
func (s *Store) handOver(ctx context.Context) error {
	voters, err := s.voters()
	if err != nil {
		return err
	}
	to, ok := s.successor(ctx, voters)
	if !ok {
		return errNoSuccessor
	}
	return s.raft.LeadershipTransferToServer(to.ID, to.Address).Error()
}

// successor asks the voters at once. One that does not answer must not be raft's target:
// while entries wait for its return (see package rafttransport), raft v1.8.0 takes one
// request to transfer to it, and at the next one blocks and refuses all writes.
func (s *Store) successor(ctx context.Context, voters []raft.Server) (best raft.Server, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, voterTimeout)
	defer cancel()
	var mu sync.Mutex // guards best, ok and furthest
	var furthest uint64
	s.eachPeer(voters, func(v raft.Server, node Target) {
		applied, err := s.cfg.Peers.Applied(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && (!ok || applied > furthest) {
			best, ok, furthest = v, true, applied
		}
	})
	return best, ok
}
