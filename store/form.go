package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Formation configures how a node without state forms or joins a cluster.
type Formation struct {
	// Peers are bind addresses of other nodes; this node's own is skipped.
	Peers []string
	// Expect is the number of nodes that form a new cluster together, including this
	// one. With 0 or 1 and without peers this node forms a cluster alone.
	Expect int
	// Wait: neither form nor join, but wait for an invitation.
	Wait bool
	// JoinTimeout bounds the attempts to join if Expect is below 2. Otherwise the
	// node waits for the others until ctx ends.
	JoinTimeout time.Duration
}

// formEvery is the pause between two rounds of calls to the peers.
const formEvery = 250 * time.Millisecond

// Form forms or joins a cluster. It returns when the node is a member, at once if it
// already has state. A node that joined is a non-voter at that time, and in a new
// cluster a voter; see Ready for when it can answer. From then on the store keeps
// the addresses that the cluster has of this node up to date.
func (s *Store) Form(ctx context.Context, f Formation) error {
	peers := slices.DeleteFunc(slices.Clone(f.Peers), func(p string) bool { return p == s.cfg.BindAdvertise })
	if err := s.form(ctx, f, peers); err != nil {
		return err
	}
	s.campaignAlone()
	s.wg.Go(func() { s.askRecovered(s.ctx, peers) })
	s.wg.Go(func() { s.announceLoop(s.ctx, peers) })
	return nil
}

func (s *Store) form(ctx context.Context, f Formation, peers []string) error {
	switch {
	case s.hadState && s.ClusterID() == "":
		return fmt.Errorf("%w %s: it has a log, but %s has no cluster id; restore it from a backup", ErrDataDir, s.cfg.DataDir, identityFile)
	case s.hadState:
		s.log.Info("restarting with state", "index", s.raft.LastIndex())
		return nil
	case f.Wait:
		return s.waitInvited(ctx)
	case s.cfg.Nonvoter && len(peers) == 0:
		return fmt.Errorf("%w: a read replica joins a cluster, and none is named (-registries, or -wait)", ErrMembership)
	case f.Expect >= 2 && !s.cfg.Nonvoter:
		return s.formTogether(ctx, f.Expect, peers)
	case len(peers) == 0:
		return s.Bootstrap([]Hello{s.Self()})
	}
	return s.joinAny(ctx, f.JoinTimeout, peers)
}

// formTogether waits until all peers answer that they are empty and have the same
// cluster name, and then bootstraps the same cluster on each. If a peer belongs to a
// cluster, it joins that one. More peers than expected are an error: nodes could
// choose different ones and form two clusters.
func (s *Store) formTogether(ctx context.Context, expect int, peers []string) error {
	log := every(5 * time.Second)
	for {
		empty, silent, member, err := s.helloAll(ctx, peers)
		if err != nil {
			return err
		}
		if member != nil {
			return s.joinFounders(ctx, *member)
		}
		if len(empty) > expect {
			return fmt.Errorf("%w: %d nodes wait to form a cluster of %d (-bootstrap-expect, -registries)", ErrMembership, len(empty), expect)
		}
		if len(empty) == expect && silent == 0 {
			return s.Bootstrap(empty)
		}
		if log() {
			s.log.Info("waiting for nodes to form a cluster", "expect", expect, "found", len(empty), "peers", strings.Join(peers, ","))
		}
		if !pause(ctx, formEvery) {
			return fmt.Errorf("%w: %d of %d nodes found: %w", ErrMembership, len(empty), expect, context.Cause(ctx))
		}
		if s.HasState() {
			return nil // another node formed the cluster with this one in it
		}
	}
}

// joinFounders joins a cluster that was formed already. If this data directory is one
// of its founders, the node bootstraps as they did; otherwise it joins as a new node.
func (s *Store) joinFounders(ctx context.Context, member Hello) error {
	if !slices.ContainsFunc(member.Founders, func(f Founder) bool { return f.ID == s.cfg.ID && f.Incarnation == s.incarnation }) {
		return s.joinAny(ctx, 0, []string{member.Bind})
	}
	nodes := make([]Hello, len(member.Founders))
	for i, f := range member.Founders {
		nodes[i] = Hello{ID: f.ID, Bind: f.Bind, Addr: f.Addr, Version: f.Version, Incarnation: f.Incarnation, FeatureLevel: member.DataLevel}
	}
	return s.Bootstrap(nodes)
}

// helloAll calls the peers. It returns the empty ones and this node, ordered by id,
// the number that did not answer, and one that belongs to a cluster.
func (s *Store) helloAll(ctx context.Context, peers []string) (empty []Hello, silent int, member *Hello, err error) {
	self := s.Self()
	empty = []Hello{self}
	for _, p := range peers {
		call, cancel := context.WithTimeout(ctx, peerTimeout)
		h, err := s.cfg.Peers.Hello(call, p)
		cancel()
		switch {
		case errors.Is(err, ErrMembership):
			return nil, 0, nil, err
		case err != nil:
			silent++ // not up yet
		case h.Incarnation == self.Incarnation: // this node by another name
		case h.Cluster != self.Cluster:
			return nil, 0, nil, fmt.Errorf("%w: %s belongs to cluster %q, this node to %q (-cluster)", ErrMembership, p, h.Cluster, self.Cluster)
		case h.Nonvoter && !h.HasState:
			return nil, 0, nil, fmt.Errorf("%w: node %q at %s is a read replica, which founds no cluster (-bootstrap-expect, -registries)", ErrMembership, h.ID, p)
		case h.ID == self.ID:
			return nil, 0, nil, fmt.Errorf("%w: node id %q is taken by the node at %s (-id)", ErrMembership, self.ID, p)
		case h.HasState, h.ClusterID != "" && h.ClusterID != self.ClusterID:
			h.Bind = p // the address that answered
			member = &h
		default:
			empty = append(empty, h)
		}
	}
	slices.SortFunc(empty, func(a, b Hello) int { return cmp.Compare(a.ID, b.ID) })
	for i := 1; i < len(empty); i++ {
		if empty[i].ID == empty[i-1].ID && empty[i].Incarnation != empty[i-1].Incarnation {
			return nil, 0, nil, fmt.Errorf("%w: two nodes have the id %q (-id)", ErrMembership, empty[i].ID)
		}
	}
	empty = slices.CompactFunc(empty, func(a, b Hello) bool { return a.ID == b.ID })
	return empty, silent, member, nil
}

// joinAny tries to join by each peer in turn, until the timeout; 0: until ctx ends.
func (s *Store) joinAny(ctx context.Context, timeout time.Duration, peers []string) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not joined within %s (-join-timeout)", timeout))
		defer cancel()
	}
	log := every(5 * time.Second)
	for {
		err := s.joinOnce(ctx, peers)
		if err == nil || errors.Is(err, ErrMembership) {
			return err
		}
		if log() {
			s.log.Info("joining", "peers", strings.Join(peers, ","), "error", err)
		}
		if !pause(ctx, formEvery) {
			return fmt.Errorf("%w: could not join by %s: %w; last error: %w",
				ErrMembership, strings.Join(peers, ","), context.Cause(ctx), err)
		}
	}
}

// joinOnce tries each peer once. From then on this node belongs to the cluster that
// admitted it.
func (s *Store) joinOnce(ctx context.Context, peers []string) error {
	self := s.Self()
	err := errors.New("no peers")
	for _, p := range peers {
		var cluster string
		cluster, err = s.joinBy(ctx, p, self)
		if err == nil {
			return s.joined(ctx, p, cluster)
		}
		if errors.Is(err, ErrMembership) {
			return err
		}
	}
	return err
}

// joined saves the cluster that admitted this node, its feature level, and which ones it
// was before, so that this node knows their nodes, too. If the peer does not say, others
// do, and the log does.
func (s *Store) joined(ctx context.Context, p, cluster string) error {
	var before []string
	var level uint32
	if s.ClusterID() == "" {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		if h, err := s.cfg.Peers.Hello(ctx, p); err == nil && h.ClusterID == cluster {
			before, level = h.RecoveredFrom, h.DataLevel
		}
	}
	return s.setCluster(cluster, nil, before, level)
}

// joinBy joins by a peer, or by the leader that it names. A node that belongs to a
// cluster ignores other clusters, even their refusals.
func (s *Store) joinBy(ctx context.Context, p string, self Hello) (cluster string, err error) {
	ctx, cancel := context.WithTimeout(ctx, membershipTimeout)
	defer cancel()
	if self.ClusterID != "" {
		h, err := s.cfg.Peers.Hello(ctx, p)
		if err != nil {
			return "", fmt.Errorf("hello: %v", err) // not wrapped: an ErrMembership of another cluster must not end this node
		}
		if err := s.superseded(h, p); err != nil {
			return "", err
		}
		if h.ClusterID != self.ClusterID {
			return "", fmt.Errorf("the node at %s belongs to cluster id %q, not to %q", p, h.ClusterID, self.ClusterID)
		}
	}
	cluster, err = s.cfg.Peers.Join(ctx, p, self)
	if errors.Is(err, ErrNotLeader) {
		h, herr := s.cfg.Peers.Hello(ctx, p)
		if herr == nil && h.Leader != "" && h.Leader != p {
			return s.joinByLeader(ctx, h, self)
		}
	}
	return cluster, err
}

// joinByLeader joins by the leader that another node named, if it belongs to that
// node's cluster: its address may belong to another cluster by now.
func (s *Store) joinByLeader(ctx context.Context, via, self Hello) (cluster string, err error) {
	leader, err := s.cfg.Peers.Hello(ctx, via.Leader)
	if err != nil || leader.ClusterID != via.ClusterID {
		return "", fmt.Errorf("%w: %s, which %s names as the leader, does not answer as a node of that cluster (%v)", ErrNotLeader, via.Leader, via.ID, err)
	}
	return s.cfg.Peers.Join(ctx, via.Leader, self)
}

// waitInvited waits until Invited has joined this node to a cluster.
func (s *Store) waitInvited(ctx context.Context) error {
	s.log.Info("waiting for an invitation", "bind", s.cfg.BindAdvertise)
	select {
	case <-s.invited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: no cluster invited this node: %w", ErrMembership, context.Cause(ctx))
	}
}

// Invited joins this empty node to the cluster of the node at bind. An operator calls
// it for a node that waits.
func (s *Store) Invited(ctx context.Context, bind string, nonvoter bool) error {
	if s.HasState() {
		return fmt.Errorf("%w: node %q is in a cluster already", ErrMembership, s.cfg.ID)
	}
	s.nonvoter.Store(nonvoter || s.cfg.Nonvoter)
	if err := s.joinOnce(ctx, []string{bind}); err != nil {
		return err
	}
	s.invitedOnce.Do(func() { close(s.invited) })
	return nil
}

// After announceLag × ElectionTimeout without a leader, a node announces itself, which
// tells it whether it is still a member.
const announceLag = 10

// announceLoop sends this node's addresses, version and zone to the leader whenever the
// cluster has others, and when there was no leader for long. So a removed node learns
// that it was removed, and fails.
func (s *Store) announceLoop(ctx context.Context, peers []string) {
	for {
		if !s.announced() {
			err := s.announce(ctx, peers)
			if errors.Is(err, ErrMembership) {
				if s.leaving.Load() {
					err = ErrLeft
				}
				s.fail(err)
				return
			}
			if err != nil {
				s.log.Debug("could not announce this node", "error", err)
			}
		}
		if !pause(ctx, time.Second) {
			return
		}
	}
}

func (s *Store) announced() bool {
	if s.Lag() > announceLag*s.cfg.ElectionTimeout {
		return false
	}
	state := s.State()
	node := state.Node(s.cfg.ID)
	if node == nil || node.Incarnation != s.incarnation || node.Bind != s.cfg.BindAdvertise || node.Addr != s.cfg.Addr || node.Version != s.cfg.Version ||
		node.Zone != recordedZone(state, s.cfg.Zone) {
		return false
	}
	servers, _, err := s.configuration()
	return err != nil || slices.ContainsFunc(servers, func(server raft.Server) bool {
		return server.ID == raft.ServerID(s.cfg.ID) && string(server.Address) == s.cfg.BindAdvertise
	})
}

func (s *Store) announce(ctx context.Context, peers []string) error {
	if s.IsLeader() {
		return s.AdmitNode(ctx, s.Self())
	}
	targets := s.addresses(peers)
	if leader, _ := s.Leader(); leader != "" {
		targets = slices.Insert(targets, 0, leader)
	}
	return s.joinOnce(ctx, targets)
}

// addresses are those of the peers, and of the other nodes of the configuration.
func (s *Store) addresses(peers []string) []string {
	all := slices.Clone(peers)
	if servers, _, err := s.configuration(); err == nil {
		for _, server := range servers {
			if server.ID != raft.ServerID(s.cfg.ID) {
				all = append(all, string(server.Address))
			}
		}
	}
	return all
}

// every returns a function that is true for the first call, and then at most once
// per d.
func every(d time.Duration) func() bool {
	var last time.Time
	return func() bool {
		if !last.IsZero() && time.Since(last) < d {
			return false
		}
		last = time.Now()
		return true
	}
}
