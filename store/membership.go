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
	"github.com/werbenhu/registry/store/rafttransport"
)

// Self describes this node.
func (s *Store) Self() Hello {
	leader, _ := s.Leader()
	return Hello{
		Cluster: s.cfg.Cluster, ID: s.cfg.ID, Bind: s.cfg.BindAdvertise, Addr: s.cfg.Addr, Version: s.cfg.Version,
		Incarnation: s.incarnation, HasState: s.HasState(), Nonvoter: s.wantsNonvoter(), Zone: s.cfg.Zone, Leader: leader,
		ClusterID: s.ClusterID(), Founders: s.founders(), RecoveredFrom: s.ident.Load().RecoveredFrom,
		FeatureLevel: s.cfg.FeatureLevel, DataLevel: s.ident.Load().level(),
	}
}

// wantsNonvoter is what the cluster has recorded of this node, and before that how
// the node was invited.
func (s *Store) wantsNonvoter() bool {
	if node := s.State().Node(s.cfg.ID); node != nil {
		return node.Nonvoter
	}
	return s.nonvoter.Load()
}

// HasState reports whether this node is or was part of a cluster.
func (s *Store) HasState() bool {
	return s.hadState || s.raft.LastIndex() > 0 || s.raft.CurrentTerm() > 0
}

// Bootstrap forms a new cluster of the given nodes. Each of them may call it with the
// same nodes: identical configurations form one cluster.
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
		return nil // another node formed it and has already reached this one
	}
	return fmt.Errorf("bootstrap: %w", err)
}

// AdmitNode adds a node to the cluster, or updates a node that is in it. Only the
// leader does. A new node starts as a non-voter and becomes a voter when it has
// caught up. A node that does not match the cluster gets [ErrMembership].
func (s *Store) AdmitNode(ctx context.Context, n Hello) error {
	l, err := s.leading(ctx)
	if err != nil {
		return err
	}
	if s.recoveredFrom(n.ClusterID) {
		return fmt.Errorf("%w: the data directory of node %q is of cluster id %s, from before its recovery as %s; %s", ErrMembership, n.ID, n.ClusterID, s.ClusterID(), joinAnew)
	}
	if own := s.ClusterID(); n.ClusterID != "" && n.ClusterID != own {
		return fmt.Errorf("%w: node %q belongs to another cluster named %q (id %s, this is %s)", ErrMembership, n.ID, n.Cluster, n.ClusterID, own)
	}
	if err := fsm.Validate(setNode(n)); err != nil { // before anything reaches the log
		return err
	}
	if n.Cluster != s.cfg.Cluster {
		return fmt.Errorf("%w: node %q belongs to cluster %q, this is %q", ErrMembership, n.ID, n.Cluster, s.cfg.Cluster)
	}
	if err := s.lockMembership(ctx); err != nil {
		return err
	}
	defer s.membership.Release(1)
	// A refusal ends the joining node: a deposed leader must not refuse.
	if _, err := l.confirm.wait(ctx); err != nil {
		return err
	}
	if err := errors.Join(s.checkLevel(n), s.checkIdentity(n)); err != nil {
		return err
	}
	if err := s.admitServer(ctx, l, n); err != nil {
		return err
	}
	// A node that has just started does not know yet how it joined.
	if known := s.State().Node(n.ID); known != nil && known.Incarnation == n.Incarnation {
		n.Nonvoter = known.Nonvoter
	}
	return s.recordNode(ctx, n)
}

// lockMembership waits until no other change of the configuration is under way. A
// change waits for other nodes, so the wait ends with the context.
func (s *Store) lockMembership(ctx context.Context) error {
	if err := s.membership.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("%w: another change of members is under way: %w", ErrBusy, context.Cause(ctx))
	}
	return nil
}

// checkIdentity refuses a node whose id belongs to another data directory: a wiped
// node lost its votes and must not vote again under the same id, until that id was
// removed from the cluster.
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
		return nil // new, or just added and not recorded yet
	}
	return fmt.Errorf("%w: node id %q is taken by another data directory (at %s); "+
		"start with another -id, or first remove the old node with: registry cluster remove %s",
		ErrMembership, n.ID, cmp.Or(at, n.Bind), n.ID)
}

// admitServer adds the node to raft's configuration, or changes its address there.
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
		return fmt.Errorf("%w: node %q was removed from the cluster; to join again, start it with an empty data directory", ErrMembership, n.ID)
	}
	next := withServer(servers, raft.Server{Suffrage: suffrage, ID: id, Address: addr})
	if err := errors.Join(s.awaitVoters(ctx, next, id), s.stillLeads(l)); err != nil {
		return fmt.Errorf("%w: add node %q: %w", ErrBusy, n.ID, err)
	}
	s.log.Info("node joins", "id", n.ID, "bind", n.Bind, "voter", suffrage == raft.Voter)
	if suffrage == raft.Voter {
		err = s.raft.AddVoter(id, addr, index, membershipTimeout).Error()
	} else {
		err = s.raft.AddNonvoter(id, addr, index, membershipTimeout).Error()
	}
	return writeError(err)
}

// recordNode writes the node's metadata if it differs from what is recorded.
func (s *Store) recordNode(ctx context.Context, n Hello) error {
	state := s.State()
	known := state.Node(n.ID)
	if known != nil && known.Bind == n.Bind && known.Addr == n.Addr && known.Version == n.Version && known.Nonvoter == n.Nonvoter && known.Zone == recordedZone(state, n.Zone) {
		return nil
	}
	_, err := s.Write(ctx, setNode(n))
	return err
}

func setNode(n Hello) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_SetNode{SetNode: &fsmpb.SetNode{Node: &fsmpb.Node{
		Id: n.ID, Bind: n.Bind, Addr: n.Addr, Version: n.Version, Incarnation: n.Incarnation, Nonvoter: n.Nonvoter, Zone: n.Zone,
	}}}}
}

const membershipTimeout = 10 * time.Second

// RemoveNode removes a node. It returns [ErrUnknownNode] if there is no such node, and
// [ErrMembership] if a majority of the remaining voters is down or behind: the
// cluster would lose its leader. A leader that is to remove itself hands leadership
// over and returns [ErrNotLeader]; the caller then calls the next leader.
func (s *Store) RemoveNode(ctx context.Context, id string) error {
	l, err := s.leading(ctx)
	if err != nil {
		return err
	}
	if err := s.lockMembership(ctx); err != nil {
		return err
	}
	defer s.membership.Release(1)
	return s.removeLocked(ctx, l, id)
}

func (s *Store) removeLocked(ctx context.Context, l *leadership, id string) error {
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
		return s.forgetNode(ctx, id) // finishes an earlier attempt
	case !found:
		return fmt.Errorf("%w: %q", ErrUnknownNode, id)
	case others == 0:
		return fmt.Errorf("%w: %q is the last voter", ErrMembership, id)
	case id == s.cfg.ID:
		if err := s.handOver(ctx); err != nil {
			return fmt.Errorf("%w: hand leadership over before the removal: %w", ErrBusy, err)
		}
		return fmt.Errorf("%w: handed leadership over before its removal", ErrNotLeader)
	}
	next := withoutServer(servers, raft.ServerID(id))
	if err := s.awaitVoters(ctx, next, ""); err != nil {
		return fmt.Errorf("%w: node %q is not removed, which would leave the voters %s: %w; start them, or remove them first",
			ErrMembership, id, names(rafttransport.Voters(next)), err)
	}
	if err := s.stillLeads(l); err != nil {
		return err
	}
	if err := s.raft.RemoveServer(raft.ServerID(id), index, membershipTimeout).Error(); err != nil {
		return writeError(err)
	}
	return s.forgetNode(ctx, id)
}

// Leaving says whether this node was asked to leave. Then, if it learns that it was
// removed, it ends with [ErrLeft].
func (s *Store) Leaving(is bool) { s.leaving.Store(is) }

// Left ends this node, which was removed because it was asked to leave.
func (s *Store) Left() { s.fail(ErrLeft) }

func (s *Store) forgetNode(ctx context.Context, id string) error {
	_, err := s.Write(ctx, &fsmpb.Command{Op: &fsmpb.Command_RemoveNode{RemoveNode: &fsmpb.RemoveNode{Id: id}}})
	return err
}

// Transfer hands leadership over to the named voter, or to the one with the highest
// applied index of those that answer. It returns [ErrUnknownNode] if there is no such
// node, [ErrMembership] if it is no voter, and [ErrBusy] if it does not answer.
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
		return fmt.Errorf("%w: there is no other voter", ErrMembership)
	}
	if id == "" {
		return transferError(s.handOver(ctx))
	}
	if id == s.cfg.ID {
		return nil
	}
	for _, v := range voters {
		if v.ID == raft.ServerID(id) {
			if _, ok := s.successor(ctx, []raft.Server{v}); !ok {
				return transferError(fmt.Errorf("node %q does not answer", id))
			}
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

// promoteEvery is how often the leader checks the non-voters.
const promoteEvery = 200 * time.Millisecond

// promoteLoop promotes joined nodes that have caught up to voters.
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
				s.log.Warn("could not promote a node to voter", "id", server.ID, "error", err)
			}
		}
	}
}

// promote makes a non-voter a voter if it has applied this leader's applied index.
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
	if err := s.lockMembership(l.ctx); err != nil {
		return err
	}
	defer s.membership.Release(1)
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

// recordFounders writes the founders' metadata before another node can join under
// one of their ids. A leader that is no founder knows none, and then an earlier
// leader has recorded them.
func (s *Store) recordFounders(ctx context.Context) error {
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
