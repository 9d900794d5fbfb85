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

// Formation says how a node without state comes into a cluster.
type Formation struct {
	// Peers are bind addresses of other nodes; this node's own is skipped.
	Peers []string
	// Expect is the number of nodes that form a new cluster together, this one
	// included. 0 and 1: without peers this node is a cluster by itself.
	Expect int
	// Wait: neither form nor join, but wait for an invitation.
	Wait bool
	// JoinTimeout bounds the attempts to join when Expect is below 2. With
	// Expect the node waits for the others as long as ctx lasts.
	JoinTimeout time.Duration
}

// formEvery is the pause between two looks at the peers.
const formEvery = 250 * time.Millisecond

// Form brings the node into a cluster; it returns when the node is a member,
// or has state from before and so needs no help. A node that joins is a
// non-voter when Form returns, or in a new cluster a voter; see Ready for when
// it can answer. Afterwards the store keeps the cluster's knowledge of this
// node's addresses up to date by itself.
func (s *Store) Form(ctx context.Context, f Formation) error {
	peers := slices.DeleteFunc(slices.Clone(f.Peers), func(p string) bool { return p == s.cfg.BindAdvertise })
	if err := s.form(ctx, f, peers); err != nil {
		return err
	}
	s.wg.Go(func() { s.announceLoop(s.ctx, peers) })
	return nil
}

func (s *Store) form(ctx context.Context, f Formation, peers []string) error {
	switch {
	case s.hadState && s.ClusterID() == "":
		return fmt.Errorf("%w %s: it holds a log, and %s names no cluster id; restore it from a backup", ErrDataDir, s.cfg.DataDir, identityFile)
	case s.hadState:
		s.log.Info("restarting with state", "index", s.raft.LastIndex())
		return nil
	case f.Wait:
		return s.waitInvited(ctx)
	case f.Expect >= 2:
		return s.formTogether(ctx, f.Expect, peers)
	case len(peers) == 0:
		return s.Bootstrap([]Hello{s.Self()})
	}
	return s.joinAny(ctx, f.JoinTimeout, peers)
}

// formTogether waits until all peers answer that they are empty and of this
// cluster, and makes the same cluster of them on each; or joins the cluster of
// any that has one. With more peers than expected, each node could choose
// others of them, and that would be two clusters: it is an error.
func (s *Store) formTogether(ctx context.Context, expect int, peers []string) error {
	log := every(5 * time.Second)
	for {
		empty, silent, member, err := s.look(ctx, peers)
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

// joinFounders comes to a cluster that has been formed. One that counts this
// very data directory among its founders waits for it; to any other this node
// is new.
func (s *Store) joinFounders(ctx context.Context, member Hello) error {
	if !slices.ContainsFunc(member.Founders, func(f Founder) bool { return f.ID == s.cfg.ID && f.Incarnation == s.incarnation }) {
		return s.joinAny(ctx, 0, []string{member.Bind})
	}
	nodes := make([]Hello, len(member.Founders))
	for i, f := range member.Founders {
		nodes[i] = Hello{ID: f.ID, Bind: f.Bind, Addr: f.Addr, Version: f.Version, Incarnation: f.Incarnation}
	}
	return s.Bootstrap(nodes)
}

// look asks the peers who they are. It returns the empty ones with this node,
// ordered by id, how many did not answer, and the address of one that is in a
// cluster.
func (s *Store) look(ctx context.Context, peers []string) (empty []Hello, silent int, member *Hello, err error) {
	self := s.Self()
	empty = []Hello{self}
	for _, p := range peers {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		h, err := s.cfg.Peers.Hello(ask, p)
		cancel()
		switch {
		case errors.Is(err, ErrMembership):
			return nil, 0, nil, err
		case err != nil:
			silent++ // not up yet
		case h.Incarnation == self.Incarnation: // this node by another name
		case h.Cluster != self.Cluster:
			return nil, 0, nil, fmt.Errorf("%w: %s is of cluster %q, this node of %q (-cluster)", ErrMembership, p, h.Cluster, self.Cluster)
		case h.ID == self.ID:
			return nil, 0, nil, fmt.Errorf("%w: node id %q is taken by the node at %s (-id)", ErrMembership, self.ID, p)
		case h.HasState, h.ClusterID != "" && h.ClusterID != self.ClusterID:
			h.Bind = p // as it was asked
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

// joinAny asks the peers in turn to take this node in. A timeout of 0 means as
// long as ctx lasts.
func (s *Store) joinAny(ctx context.Context, timeout time.Duration, peers []string) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not joined within %s (-join-timeout)", timeout))
		defer cancel()
	}
	log := every(5 * time.Second)
	for {
		err := s.askToJoin(ctx, peers)
		if err == nil || errors.Is(err, ErrMembership) {
			return err
		}
		if log() {
			s.log.Info("joining", "peers", strings.Join(peers, ","), "error", err)
		}
		if !pause(ctx, formEvery) {
			return fmt.Errorf("%w: no node of %s took this node in: %w; last error: %w",
				ErrMembership, strings.Join(peers, ","), context.Cause(ctx), err)
		}
	}
}

// askToJoin makes one round over the peers. The cluster that takes this node in
// is the one it belongs to from then on.
func (s *Store) askToJoin(ctx context.Context, peers []string) error {
	self := s.Self()
	err := errors.New("no peers")
	for _, p := range peers {
		var cluster string
		cluster, err = s.askOne(ctx, p, self)
		if err == nil {
			return s.setCluster(cluster, nil)
		}
		if errors.Is(err, ErrMembership) {
			return err
		}
	}
	return err
}

// askOne asks a peer, or the leader that it names. A node that belongs to a
// cluster takes no word from another one: not even that it does not belong.
func (s *Store) askOne(ctx context.Context, p string, self Hello) (cluster string, err error) {
	ctx, cancel := context.WithTimeout(ctx, membershipTimeout)
	defer cancel()
	if self.ClusterID != "" {
		h, err := s.cfg.Peers.Hello(ctx, p)
		if err != nil {
			return "", fmt.Errorf("no answer that counts: %v", err) // not wrapped: it ends no member
		}
		if h.ClusterID != self.ClusterID {
			return "", fmt.Errorf("the node at %s is of cluster id %q, not of %q", p, h.ClusterID, self.ClusterID)
		}
	}
	cluster, err = s.cfg.Peers.Join(ctx, p, self)
	if errors.Is(err, ErrNotLeader) {
		h, herr := s.cfg.Peers.Hello(ctx, p)
		if herr == nil && h.Leader != "" && h.Leader != p {
			return s.askLeader(ctx, h, self)
		}
	}
	return cluster, err
}

// askLeader asks the leader that another node named, if it is of that node's
// cluster: its address may belong to somebody else by now.
func (s *Store) askLeader(ctx context.Context, via, self Hello) (cluster string, err error) {
	leader, err := s.cfg.Peers.Hello(ctx, via.Leader)
	if err != nil || leader.ClusterID != via.ClusterID {
		return "", fmt.Errorf("%w: %s, named by %s, does not answer as its leader (%v)", ErrNotLeader, via.Leader, via.ID, err)
	}
	return s.cfg.Peers.Join(ctx, via.Leader, self)
}

// waitInvited waits until Invited has been called and a cluster took this node in.
func (s *Store) waitInvited(ctx context.Context) error {
	s.log.Info("waiting for an invitation", "bind", s.cfg.BindAdvertise)
	select {
	case <-s.invited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: no cluster invited this node: %w", ErrMembership, context.Cause(ctx))
	}
}

// Invited has this empty node join the cluster of the node at bind. It is how
// an operator takes in a node that waits.
func (s *Store) Invited(ctx context.Context, bind string, nonvoter bool) error {
	if s.HasState() {
		return fmt.Errorf("%w: node %q is in a cluster already", ErrMembership, s.cfg.ID)
	}
	s.nonvoter.Store(nonvoter)
	if err := s.askToJoin(ctx, []string{bind}); err != nil {
		return err
	}
	s.invitedOnce.Do(func() { close(s.invited) })
	return nil
}

// silence × ElectionTimeout without a leader's word make a node ask whether it
// still belongs.
const silence = 10

// announceLoop tells the leader whenever what the cluster knows of this node
// is not what is: after a start from another address, with another version. It
// also asks when no leader has been heard for long, which is how a node learns
// that it was removed; such a node fails.
func (s *Store) announceLoop(ctx context.Context, peers []string) {
	for {
		if !s.announced() {
			err := s.announce(ctx, peers)
			if errors.Is(err, ErrMembership) {
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
	if s.Lag() > silence*s.cfg.ElectionTimeout {
		return false
	}
	node := s.State().Node(s.cfg.ID)
	if node == nil || node.Incarnation != s.incarnation || node.Bind != s.cfg.BindAdvertise || node.Addr != s.cfg.Addr || node.Version != s.cfg.Version {
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
	ask := slices.Clone(peers)
	if leader, _ := s.Leader(); leader != "" {
		ask = slices.Insert(ask, 0, leader)
	}
	if servers, _, err := s.configuration(); err == nil {
		for _, server := range servers {
			if server.ID != raft.ServerID(s.cfg.ID) {
				ask = append(ask, string(server.Address))
			}
		}
	}
	return s.askToJoin(ctx, ask)
}

// every returns a function that says at most once in d, and at once, whether
// to log.
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
