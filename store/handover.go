package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// askVoter bounds one question to one voter.
const askVoter = 500 * time.Millisecond

var errNoSuccessor = errors.New("no other voter answers")

// handOver gives leadership to the voter that is furthest ahead of those that
// answer. Left to itself raft takes the one that it would send the latest entry
// to next, which may be one that is down: a new leader expects that of all.
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

// successor asks the other voters, all at once.
func (s *Store) successor(ctx context.Context, voters []raft.Server) (best raft.Server, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askVoter)
	defer cancel()
	var mu sync.Mutex // guards best, ok and furthest
	var furthest uint64
	var asked sync.WaitGroup
	for _, v := range voters {
		if v.ID == raft.ServerID(s.cfg.ID) {
			continue
		}
		asked.Go(func() {
			applied, err := s.cfg.Peers.Applied(ctx, s.target(string(v.Address), string(v.ID)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil && (!ok || applied > furthest) {
				best, ok, furthest = v, true, applied
			}
		})
	}
	asked.Wait()
	return best, ok
}
