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
	// settleLimit bounds the wait for the voters before a change of the
	// configuration. It is below what a forwarded call may take.
	settleLimit = 2 * time.Second
	settleEvery = 50 * time.Millisecond
)

// errUnsettled: a majority of the voters after a change does not have what the
// cluster has committed before it.
var errUnsettled = errors.New("a majority of the voters after this change would not have the change before it")

// awaitVoters waits, before a change of the configuration, until each voter of the
// next configuration that answers has applied what is committed now, and with it
// the configuration before. It returns [errUnsettled] when after settleLimit a
// majority of them has not.
//
// Raft counts by a new configuration as soon as the leader has written it. If a
// majority of its voters is down, or knows only an older configuration, the
// change cannot be committed, and yet the nodes that wrote it elect nobody
// without that majority: a majority of the voters that were acknowledged before
// runs, and there is no leader.
//
// moved is a node whose new address the change brings: it cannot be reached by
// raft before, so nothing is waited for.
func (s *Store) awaitVoters(ctx context.Context, next []raft.Server, moved raft.ServerID) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	target := s.raft.CommitIndex()
	for {
		missing, wait := s.lacking(ctx, next, moved, target)
		voters := len(rafttransport.Voters(next))
		enough := voters-len(missing) > voters/2
		if enough && !wait {
			return nil
		}
		if pause(ctx, settleEvery) {
			continue
		}
		if enough {
			return nil
		}
		return fmt.Errorf("%w: %s", errUnsettled, strings.Join(missing, ", "))
	}
}

// lacking asks the other voters of a configuration, all at once. It returns those
// that have not applied the index, with what is known of each, and whether
// one of them answers and so is worth waiting for.
func (s *Store) lacking(ctx context.Context, of []raft.Server, moved raft.ServerID, index uint64) (missing []string, wait bool) {
	ctx, cancel := context.WithTimeout(ctx, askVoter)
	defer cancel()
	var mu sync.Mutex // guards missing and wait
	var asked sync.WaitGroup
	for _, v := range rafttransport.Voters(of) {
		if v.ID == raft.ServerID(s.cfg.ID) {
			continue
		}
		asked.Go(func() {
			applied, err := s.cfg.Peers.Applied(ctx, s.target(string(v.Address), string(v.ID)))
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
	}
	asked.Wait()
	slices.Sort(missing)
	return missing, wait
}

// withServer is the configuration with a server as stated.
func withServer(servers []raft.Server, server raft.Server) []raft.Server {
	return append(withoutServer(servers, server.ID), server)
}

func withoutServer(servers []raft.Server, id raft.ServerID) []raft.Server {
	return slices.DeleteFunc(slices.Clone(servers), func(other raft.Server) bool { return other.ID == id })
}

// stillLeads returns an error when this stretch of leadership is over. Within
// one stretch, and under Store.membership, the configuration is what it was
// read as: raft's own check of that needs an index that raft v1.8.0 does not tell
// (GetConfiguration answers with index 0, which checks nothing).
func (s *Store) stillLeads(l *leadership) error {
	if s.lead.Load() != l {
		return fmt.Errorf("%w: leadership ended", ErrNotLeader)
	}
	return nil
}
