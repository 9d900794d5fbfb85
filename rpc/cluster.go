package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// statusTimeout bounds the wait for one node's status.
const statusTimeout = 2 * time.Second

func nodeStatus(st store.Status) *registrypb.NodeStatus {
	n := &registrypb.NodeStatus{
		Id: st.ID, Bind: st.Bind, Addr: st.Addr, Version: st.Version, Role: st.Role, Voter: st.Voter, Ready: st.Ready,
		AppliedIndex: st.AppliedIndex, CommitIndex: st.CommitIndex, Digest: st.Digest, Lag: durationpb.New(st.Lag), Alarms: st.Alarms,
		FeatureLevel: st.Supports,
	}
	return n
}

// ownStatus is this node's status, with the ring of the requested group, which it
// builds.
func (s *Server) ownStatus(ctx context.Context, st store.Status, group string) *registrypb.NodeStatus {
	n := nodeStatus(st)
	state := s.store.State()
	g := state.GroupToRead(group)
	if g == nil {
		return n
	}
	n.Revision, n.Fingerprint = g.Revision, g.Fingerprint()
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	view, _, err := s.view(ctx, state, g, rings.Freshness{MinIndex: state.Index()})
	if err != nil {
		n.Alarms = append(n.Alarms, err.Error())
		return n
	}
	n.Revision, n.Fingerprint, n.RingDigest = view.Revision, view.Fingerprint, view.Ring.Digest()
	return n
}

// Status implements the public service: it queries all nodes of the configuration
// concurrently.
func (s *Server) Status(ctx context.Context, req *registrypb.StatusRequest) (*registrypb.StatusResponse, error) {
	if err := callOf(ctx).settle(); err != nil && (req.GetGroup() != "" || !errors.Is(err, store.ErrNotLeader)) {
		return nil, toStatus(err)
	}
	st := s.store.Status()
	resp := &registrypb.StatusResponse{Cluster: st.Cluster, ClusterId: s.store.ClusterID(), Leader: st.LeaderID, Term: st.Term, FeatureLevel: st.FeatureLevel}
	resp.Nodes = make([]*registrypb.NodeStatus, len(st.Configuration))
	removals := wireRemovals(s.store.DeadVoters()) // none on a follower
	var wg sync.WaitGroup
	for i, server := range st.Configuration {
		if string(server.ID) == st.ID {
			wg.Go(func() { resp.Nodes[i] = s.ownStatus(ctx, st, req.Group) })
			continue
		}
		wg.Go(func() {
			var of map[string]*registrypb.Removal
			resp.Nodes[i], of = s.peerStatus(ctx, server, req.Group)
			if string(server.ID) == st.LeaderID {
				removals = of
			}
		})
	}
	wg.Wait()
	state := s.store.State()
	for _, n := range resp.Nodes {
		n.Removal = removals[n.Id]
		if known := state.Node(n.Id); known != nil {
			n.Zone = known.Zone // what the alarm of zones counts, and not what a node says of itself
		}
	}
	slices.SortFunc(resp.Nodes, func(a, b *registrypb.NodeStatus) int { return cmp.Compare(a.Id, b.Id) })
	return resp, nil
}

// wireRemovals are the leader's answer about the voters that it does not reach.
func wireRemovals(dead []store.DeadVoter) map[string]*registrypb.Removal {
	out := make(map[string]*registrypb.Removal, len(dead))
	for _, d := range dead {
		r := &registrypb.Removal{Unreachable: durationpb.New(d.Unreachable), Kept: d.Kept}
		if d.Kept == "" {
			r.RemovedIn = durationpb.New(d.RemovedIn)
		}
		out[d.ID] = r
	}
	return out
}

func (s *Server) peerStatus(ctx context.Context, server raft.Server, group string) (*registrypb.NodeStatus, map[string]*registrypb.Removal) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	c, err := s.peers.client(string(server.Address))
	if err == nil {
		var r *peerpb.StatusResponse
		if r, err = c.Status(ctx, &peerpb.StatusRequest{Group: group}); err == nil {
			return r.Node, r.Removals
		}
	}
	n := &registrypb.NodeStatus{
		Id: string(server.ID), Bind: string(server.Address), Voter: server.Suffrage == raft.Voter,
		Error: stripStatus(err).Error(),
	}
	if known := s.store.State().Node(n.Id); known != nil {
		n.Addr, n.Version = known.Addr, known.Version
	}
	return n, nil
}

// Join implements the public service: it invites the node at the address, which must
// be waiting to join.
func (s *Server) Join(ctx context.Context, req *registrypb.JoinRequest) (*registrypb.JoinResponse, error) {
	if err := fsm.ValidateAddr("bind", req.Bind); err != nil {
		return nil, toStatus(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	self := s.store.Self()
	// The address is not a peer's yet, so its connection is closed after the call.
	conn, err := s.peers.dialNode(req.Bind)
	if err != nil {
		return nil, toStatus(err)
	}
	defer func() { _ = conn.Close() }() // no call uses it
	c := peerpb.NewPeerClient(conn)
	h, err := s.peers.hello(ctx, c, req.Bind)
	switch {
	case err != nil:
		return nil, toStatus(fmt.Errorf("%w: no node answers at %s: %w", store.ErrMembership, req.Bind, stripStatus(err)))
	case h.Cluster != self.Cluster:
		return nil, toStatus(fmt.Errorf("%w: node %q is of cluster %q, this is %q", store.ErrMembership, h.ID, h.Cluster, self.Cluster))
	case h.HasState:
		return nil, toStatus(fmt.Errorf("%w: node %q at %s is in a cluster already", store.ErrMembership, h.ID, req.Bind))
	}
	r, err := c.Invite(ctx, &peerpb.InviteRequest{Cluster: self.Cluster, Bind: self.Bind, Nonvoter: req.Nonvoter})
	if err != nil {
		return nil, toStatus(err)
	}
	return &registrypb.JoinResponse{Id: r.Id}, nil
}

// Remove implements the public service.
func (s *Server) Remove(ctx context.Context, req *registrypb.RemoveRequest) (*registrypb.RemoveResponse, error) {
	return onLeader(ctx, s, registrypb.Cluster_Remove_FullMethodName, req, s.remove)
}

func (s *Server) remove(ctx context.Context, req *registrypb.RemoveRequest) (*registrypb.RemoveResponse, error) {
	if err := s.store.RemoveNode(ctx, req.Id); err != nil {
		return nil, err
	}
	return &registrypb.RemoveResponse{}, nil
}

// RaiseFeatureLevel implements the public service.
func (s *Server) RaiseFeatureLevel(ctx context.Context, req *registrypb.RaiseFeatureLevelRequest) (*registrypb.RaiseFeatureLevelResponse, error) {
	return onLeader(ctx, s, registrypb.Cluster_RaiseFeatureLevel_FullMethodName, req, func(ctx context.Context, req *registrypb.RaiseFeatureLevelRequest) (*registrypb.RaiseFeatureLevelResponse, error) {
		level, err := s.store.RaiseFeatureLevel(ctx, req.Level)
		if err != nil {
			return nil, err
		}
		return &registrypb.RaiseFeatureLevelResponse{Level: level}, nil
	})
}

// Leave implements the public service. The call is answered before the node ends: it
// waits for calls in progress.
func (s *Server) Leave(ctx context.Context, req *registrypb.LeaveRequest) (*registrypb.LeaveResponse, error) {
	if id := s.store.ID(); req.Id != id {
		return nil, toStatus(fmt.Errorf("%w: this is node %q, not %q", store.ErrMembership, id, req.Id))
	}
	s.store.Leaving(true)
	_, err := onLeader(ctx, s, registrypb.Cluster_Remove_FullMethodName, &registrypb.RemoveRequest{Id: req.Id}, s.remove)
	switch {
	case err == nil, reasonOf(err) == registrypb.ErrorDetail_UNKNOWN_NODE: // it left in an earlier attempt
		s.store.Left()
		return &registrypb.LeaveResponse{}, nil
	case !outcomeUnknown(err):
		s.store.Leaving(false)
	}
	return nil, err
}

// Transfer implements the public service; it returns when the new leader is known.
func (s *Server) Transfer(ctx context.Context, req *registrypb.TransferRequest) (*registrypb.TransferResponse, error) {
	cluster, forwarded := forwardedTo(ctx)
	if forwarded {
		if err := s.store.IsTarget("", cluster); err != nil {
			return nil, toStatus(err)
		}
	}
	if err := callOf(ctx).asLeader(ctx); err != nil && (forwarded || !errors.Is(err, store.ErrNotLeader)) {
		return nil, toStatus(err)
	} else if err == nil && (forwarded || s.store.IsLeader()) {
		resp, err := s.transfer(ctx, req)
		return resp, toStatus(err)
	}
	// One hop and no retry, which would transfer again. A change of the leader does not
	// end the call: it is its purpose.
	leader, _ := s.store.Leader()
	resp, _, err := forwardTo[registrypb.TransferResponse](ctx, s, leader, registrypb.Cluster_Transfer_FullMethodName, req)
	return resp, toStatus(err)
}

func (s *Server) transfer(ctx context.Context, req *registrypb.TransferRequest) (*registrypb.TransferResponse, error) {
	changes, stop := s.store.LeaderChanges()
	defer stop()
	if err := s.store.Transfer(ctx, req.Id); err != nil {
		return nil, err
	}
	for {
		if _, id := s.store.Leader(); id != "" && (id != s.store.ID() || req.Id == id) {
			return &registrypb.TransferResponse{Leader: id}, nil
		}
		select {
		case <-changes:
		case <-ctx.Done():
			// Not one of the store's errors, which are retried: a retry would transfer again.
			return nil, fmt.Errorf("leadership was given up, and no new leader is known yet: %w", context.Cause(ctx))
		}
	}
}
