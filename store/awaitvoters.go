package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/rafttransport"
)

const (
	// awaitVotersLimit bounds the wait before a change of the configuration. It is
	// below the timeout of a forwarded call.
	awaitVotersLimit = 2 * time.Second
	awaitVotersEvery = 50 * time.Millisecond
)

// errVotersBehind: a majority of the voters after a change has not applied what is
// committed before it.
var errVotersBehind = errors.New("a majority of the voters after this change is down or behind")

// awaitVoters waits, before a change of the configuration, until each voter of the
// next configuration that answers has applied what is committed now, including the
// previous change. It returns [errVotersBehind] if a majority of them has not after
// awaitVotersLimit.
//
// raft uses a new configuration as soon as the leader has written it. If a majority
// of its voters is down, or has only an older configuration, the change cannot be
// committed, and yet the nodes that wrote it need that majority to elect a leader.
// Then there is no leader although a majority of the previous voters runs.
//
// moved is a node that gets a new address by the change. raft cannot reach it
// before the change, so it is not waited for.
func (s *Store) awaitVoters(ctx context.Context, next []raft.Server, moved raft.ServerID) error {
	ctx, cancel := context.WithTimeout(ctx, awaitVotersLimit)
	defer cancel()
	target := s.raft.CommitIndex()
	for {
		missing, wait := s.votersBehind(ctx, next, moved, target)
		voters := len(rafttransport.Voters(next))
		enough := voters-len(missing) > voters/2
		if enough && !wait {
			return nil
		}
		if pause(ctx, awaitVotersEvery) {
			continue
		}
		if enough {
			return nil
		}
		return fmt.Errorf("%w: %s", errVotersBehind, strings.Join(missing, ", "))
	}
}

// votersBehind asks all other voters of a configuration at once. It returns those
// that have not applied the index, with the reason, and whether to wait because
// one of them answers.
func (s *Store) votersBehind(ctx context.Context, of []raft.Server, moved raft.ServerID, index uint64) (missing []string, wait bool) {
	ctx, cancel := context.WithTimeout(ctx, voterTimeout)
	defer cancel()
	var mu sync.Mutex // guards missing and wait
	s.eachPeer(rafttransport.Voters(of), func(v raft.Server, node Target) {
		applied, err := s.cfg.Peers.Applied(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			missing = append(missing, fmt.Sprintf("%s does not answer", v.ID))
		case applied < index:
			missing = append(missing, fmt.Sprintf("%s is behind", v.ID))
			wait = wait || v.ID != moved
		}
	})
	slices.Sort(missing)
	return missing, wait
}

// withServer is the configuration with a server added or replaced.
func withServer(servers []raft.Server, server raft.Server) []raft.Server {
	return append(withoutServer(servers, server.ID), server)
}

func withoutServer(servers []raft.Server, id raft.ServerID) []raft.Server {
	return slices.DeleteFunc(slices.Clone(servers), func(other raft.Server) bool { return other.ID == id })
}

// stillLeads returns an error if this leadership has ended. During one leadership,
// and under Store.membership, the configuration does not change after it was read.
// raft's own check of that needs the index of the configuration, which raft v1.8.0
// does not return (GetConfiguration's index is 0, which disables the check).
func (s *Store) stillLeads(l *leadership) error {
	if s.lead.Load() != l {
		return fmt.Errorf("%w: leadership ended", ErrNotLeader)
	}
	return nil
}
