package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// Self says who this node is.
func (s *Store) Self() Hello {
	leader, _ := s.Leader()
	return Hello{
		Cluster: s.cfg.Cluster, ID: s.cfg.ID, Bind: s.cfg.BindAdvertise, Addr: s.cfg.Addr, Version: s.cfg.Version,
		Incarnation: s.incarnation, HasState: s.HasState(), Nonvoter: s.wantsNonvoter(), Leader: leader,
		ClusterID: s.ClusterID(), Founders: s.founders(),
	}
}

// wantsNonvoter is what the cluster knows, and before it knows this node, what
// the node was invited as.
func (s *Store) wantsNonvoter() bool {
	if node := s.State().Node(s.cfg.ID); node != nil {
		return node.Nonvoter
	}
	return s.nonvoter.Load()
}

// HasState says whether this node is or was part of a cluster.
func (s *Store) HasState() bool {
	return s.hadState || s.raft.LastIndex() > 0 || s.raft.CurrentTerm() > 0
}

// Bootstrap makes a new cluster of the given nodes. All of them may call it
// with the same nodes: identical configurations are one cluster.
func (s *Store) Bootstrap(nodes []Hello) error {
	if err := s.saveFounders(nodes); err != nil {
		return err
	}
	var conf raft.Configuration
	for _, n := range nodes {
		conf.Servers = append(conf.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(n.ID), Address: raft.ServerAddress(n.Bind),
		})
	}
	err := s.raft.BootstrapCluster(conf).Error()
	if err == nil {
		s.log.Info("new cluster", "cluster", s.cfg.Cluster, "nodes", len(nodes))
		return nil
	}
	if errors.Is(err, raft.ErrCantBootstrap) {
		return nil // another node was first and has already reached this one
	}
	return fmt.Errorf("bootstrap: %w", err)
}

// AdmitNode takes a node into the cluster, or notes what changed of one that is in
// it. Only the leader admits. A new node comes as a non-voter and becomes a
// voter when it has caught up. It returns [ErrMembership] when the node cannot
// be what it says.
func (s *Store) AdmitNode(ctx context.Context, n Hello) error {
	l, err := s.leading(ctx)
	if err != nil {
		return err
	}
	if own := s.ClusterID(); n.ClusterID != "" && n.ClusterID != own {
		return fmt.Errorf("%w: node %q is of another cluster of the name %q (id %s, this is %s)", ErrMembership, n.ID, n.Cluster, n.ClusterID, own)
	}
	if err := fsm.Validate(setNode(n)); err != nil { // before anything reaches the log
		return err
	}
	if n.Cluster != s.cfg.Cluster {
		return fmt.Errorf("%w: node %q is of cluster %q, this is %q", ErrMembership, n.ID, n.Cluster, s.cfg.Cluster)
	}
	s.membership.Lock()
	defer s.membership.Unlock()
	// A refusal ends the node that asks: a deposed leader must not give one.
	if err := s.confirm.wait(ctx, l); err != nil {
		return err
	}
	if err := s.checkIdentity(n); err != nil {
		return err
	}
	if err := s.admitServer(ctx, l, n); err != nil {
		return err
	}
	return s.noteNode(ctx, n)
}

// checkIdentity refuses a node under an id that another data directory holds:
// whoever was wiped forgot its votes and must not vote again as the same node.
func (s *Store) checkIdentity(n Hello) error {
	servers, _, err := s.configuration()
	if err != nil {
		return err
	}
	known, at, votes := s.State().Node(n.ID), "", false
	for _, server := range servers {
		switch {
		case string(server.ID) == n.ID:
			at, votes = string(server.Address), server.Suffrage == raft.Voter
		case string(server.Address) == n.Bind:
			return fmt.Errorf("%w: bind address %s belongs to node %q", ErrMembership, n.Bind, server.ID)
		}
	}
	switch {
	case n.ID == s.cfg.ID:
		if n.Incarnation == s.incarnation {
			return nil
		}
	case known != nil:
		if n.Incarnation == known.Incarnation {
			return nil
		}
	case at == "" || at == n.Bind && !votes:
		return nil // new, or taken in a moment ago and not noted yet
	}
	return fmt.Errorf("%w: node id %q is taken by another data directory (at %s); "+
		"start with another -id, or first take the old one out with: registry cluster remove %s",
		ErrMembership, n.ID, cmp.Or(at, n.Bind), n.ID)
}

// admitServer brings raft's configuration in line with the node.
func (s *Store) admitServer(ctx context.Context, l *leadership, n Hello) error {
	servers, index, err := s.configuration()
	if err != nil {
		return err
	}
	id, addr := raft.ServerID(n.ID), raft.ServerAddress(n.Bind)
	suffrage, member := raft.Nonvoter, false
	for _, server := range servers {
		if server.ID != id {
			continue
		}
		if server.Address == addr {
			return nil
		}
		suffrage, member = server.Suffrage, true // it moved
	}
	if !member && n.HasState {
		return fmt.Errorf("%w: node %q was removed from the cluster; it can come back with an empty data directory under a new id", ErrMembership, n.ID)
	}
	next := withServer(servers, raft.Server{Suffrage: suffrage, ID: id, Address: addr})
	if err := errors.Join(s.awaitVoters(ctx, next, id), s.stillLeads(l)); err != nil {
		return fmt.Errorf("%w: take in node %q: %w", ErrBusy, n.ID, err)
	}
	s.log.Info("node joins", "id", n.ID, "bind", n.Bind, "voter", suffrage == raft.Voter)
	if suffrage == raft.Voter {
		err = s.raft.AddVoter(id, addr, index, membershipTimeout).Error()
	} else {
		err = s.raft.AddNonvoter(id, addr, index, membershipTimeout).Error()
	}
	return writeError(err)
}

// noteNode writes the node's metadata when it differs from what is known.
func (s *Store) noteNode(ctx context.Context, n Hello) error {
	known := s.State().Node(n.ID)
	if known != nil && known.Bind == n.Bind && known.Addr == n.Addr && known.Version == n.Version && known.Nonvoter == n.Nonvoter {
		return nil
	}
	_, err := s.Write(ctx, setNode(n))
	return err
}

func setNode(n Hello) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_SetNode{SetNode: &fsmpb.SetNode{Node: &fsmpb.Node{
		Id: n.ID, Bind: n.Bind, Addr: n.Addr, Version: n.Version, Incarnation: n.Incarnation, Nonvoter: n.Nonvoter,
	}}}}
}

const membershipTimeout = 10 * time.Second

// RemoveNode takes a node out for good. It returns [ErrUnknownNode] when there is
// none of that id, and [ErrMembership] when a
// majority of the voters that would be left is down or behind: then the cluster
// would lose its leader with one of the others. A leader that removes itself hands
// over first: then the answer is [ErrNotLeader], and the call goes to the next.
func (s *Store) RemoveNode(ctx context.Context, id string) error {
	l, err := s.leading(ctx)
	if err != nil {
		return err
	}
	s.membership.Lock()
	defer s.membership.Unlock()
	servers, index, err := s.configuration()
	if err != nil {
		return err
	}
	found, others := false, 0
	for _, server := range servers {
		if server.ID == raft.ServerID(id) {
			found = true
		} else if server.Suffrage == raft.Voter {
			others++
		}
	}
	switch {
	case !found && s.State().Node(id) != nil:
		return s.forgetNode(ctx, id) // an earlier attempt came half way
	case !found:
		return fmt.Errorf("%w: %q", ErrUnknownNode, id)
	case others == 0:
		return fmt.Errorf("%w: %q is the last voter", ErrMembership, id)
	case id == s.cfg.ID:
		if err := s.handOver(ctx); err != nil {
			return fmt.Errorf("%w: hand over before leaving: %w", ErrBusy, err)
		}
		return fmt.Errorf("%w: handed over in order to leave", ErrNotLeader)
	}
	if err := s.awaitVoters(ctx, withoutServer(servers, raft.ServerID(id)), ""); err != nil {
		return fmt.Errorf("%w: node %q stays for now: %w; start them first", ErrMembership, id, err)
	}
	if err := s.stillLeads(l); err != nil {
		return err
	}
	if err := s.raft.RemoveServer(raft.ServerID(id), index, membershipTimeout).Error(); err != nil {
		return writeError(err)
	}
	return s.forgetNode(ctx, id)
}

func (s *Store) forgetNode(ctx context.Context, id string) error {
	_, err := s.Write(ctx, &fsmpb.Command{Op: &fsmpb.Command_RemoveNode{RemoveNode: &fsmpb.RemoveNode{Id: id}}})
	return err
}

// Transfer hands leadership to the named voter, or to the one furthest ahead of
// those that answer. It returns [ErrUnknownNode] when there is no node of that id,
// and [ErrMembership] when it has no vote.
func (s *Store) Transfer(ctx context.Context, id string) error {
	if _, err := s.leading(ctx); err != nil {
		return err
	}
	if id != "" && !s.isMember(id) {
		return fmt.Errorf("%w: %q", ErrUnknownNode, id)
	}
	voters, err := s.voters()
	if err != nil {
		return err
	}
	if len(voters) < 2 {
		return fmt.Errorf("%w: no other voter to hand leadership to", ErrMembership)
	}
	if id == "" {
		return transferError(s.handOver(ctx))
	}
	if id == s.cfg.ID {
		return nil
	}
	for _, v := range voters {
		if v.ID == raft.ServerID(id) {
			return transferError(s.raft.LeadershipTransferToServer(v.ID, v.Address).Error())
		}
	}
	return fmt.Errorf("%w: node %q has no vote", ErrMembership, id)
}

func transferError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: transfer leadership: %w", ErrBusy, err)
}

func (s *Store) configuration() ([]raft.Server, uint64, error) {
	f := s.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, 0, fmt.Errorf("read configuration: %w", err)
	}
	return f.Configuration().Servers, f.Index(), nil
}

// promoteEvery is how often the leader looks at non-voters.
const promoteEvery = 200 * time.Millisecond

// promoteLoop makes voters of nodes that joined and have caught up.
func (s *Store) promoteLoop(l *leadership) {
	log := every(10 * time.Second)
	for pause(l.ctx, promoteEvery) {
		servers, _, err := s.configuration()
		if err != nil {
			continue
		}
		for _, server := range servers {
			if server.Suffrage != raft.Nonvoter {
				continue
			}
			if err := s.promote(l, server); err != nil && l.ctx.Err() == nil && log() {
				s.log.Warn("could not make a node a voter", "id", server.ID, "error", err)
			}
		}
	}
}

// promote makes one non-voter a voter if it has applied all that was committed
// a moment ago.
func (s *Store) promote(l *leadership, server raft.Server) error {
	node := s.State().Node(string(server.ID))
	if node == nil || node.Nonvoter {
		return nil
	}
	target := s.State().Index()
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	applied, err := s.cfg.Peers.Applied(ctx, s.target(string(server.Address), string(server.ID)))
	if err != nil || applied < target {
		return nil // not yet
	}
	s.membership.Lock()
	defer s.membership.Unlock()
	servers, index, err := s.configuration()
	if err != nil || !slices.Contains(servers, server) {
		return err
	}
	voter := server
	voter.Suffrage = raft.Voter
	if err := errors.Join(s.awaitVoters(l.ctx, withServer(servers, voter), ""), s.stillLeads(l)); err != nil {
		return err
	}
	if err := s.raft.AddVoter(server.ID, server.Address, index, membershipTimeout).Error(); err != nil {
		return err
	}
	s.log.Info("node became a voter", "id", server.ID)
	return nil
}

// noteFounders writes the founders' metadata before anybody can come under one
// of their names. A leader that did not found the cluster knows none, and
// another noted them before it came.
func (s *Store) noteFounders(ctx context.Context) error {
	for _, f := range s.founders() {
		if s.State().Node(f.ID) != nil || !s.isMember(f.ID) {
			continue
		}
		n := Hello{ID: f.ID, Bind: f.Bind, Addr: f.Addr, Version: f.Version, Incarnation: f.Incarnation}
		if _, err := s.propose(ctx, setNode(n)); err != nil { // the term is not open yet
			return err
		}
	}
	return nil
}

func (s *Store) isMember(id string) bool {
	servers, _, err := s.configuration()
	return err == nil && slices.ContainsFunc(servers, func(server raft.Server) bool { return string(server.ID) == id })
}
