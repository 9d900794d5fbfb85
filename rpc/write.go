package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// Register implements the public service.
func (s *Server) Register(ctx context.Context, req *registrypb.RegisterRequest) (*registrypb.RegisterResponse, error) {
	if len(req.Instance) == 0 {
		// Made here, before the hop: an attempt that is repeated is then the
		// same process's, not another's.
		req.Instance = make([]byte, 16)
		_, _ = rand.Read(req.Instance) // never fails: documented
	}
	cmd, err := registerCommand(req)
	if err == nil {
		err = fsm.Validate(cmd)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return onLeader(ctx, s, req, s.register, func(c *grpc.ClientConn) func(context.Context, *registrypb.RegisterRequest, ...grpc.CallOption) (*registrypb.RegisterResponse, error) {
		return registrypb.NewRegistryClient(c).Register
	})
}

func registerCommand(req *registrypb.RegisterRequest) (*fsmpb.Command, error) {
	ttl, weight := fsm.DefaultTTL, req.Weight
	if req.Ttl != nil {
		ttl = req.Ttl.AsDuration()
	}
	if weight == 0 {
		weight = 1
	}
	state, err := stateToLog(req.State)
	return &fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: req.Group, Id: req.Id, Addr: req.Addr, Weight: weight, Meta: metaToLog(req.Meta),
		TtlMs: ttl.Milliseconds(), Instance: req.Instance, TakeOver: req.TakeOver,
		StatePlusOne: state,
	}}}, err
}

func (s *Server) register(ctx context.Context, req *registrypb.RegisterRequest) (*registrypb.RegisterResponse, error) {
	cmd, err := registerCommand(req)
	if err != nil {
		return nil, err
	}
	r, err := s.store.WriteOnce(ctx, cmd, attemptOf(ctx))
	if err != nil {
		return nil, err
	}
	return &registrypb.RegisterResponse{
		LeaseId: r.LeaseID, Ttl: durationpb.New(r.TTL), Index: r.Index, Instance: []byte(r.Instance), Revision: r.Revision,
	}, nil
}

// Deregister implements the public service.
func (s *Server) Deregister(ctx context.Context, req *registrypb.DeregisterRequest) (*registrypb.DeregisterResponse, error) {
	return onLeader(ctx, s, req, s.deregister, func(c *grpc.ClientConn) func(context.Context, *registrypb.DeregisterRequest, ...grpc.CallOption) (*registrypb.DeregisterResponse, error) {
		return registrypb.NewRegistryClient(c).Deregister
	})
}

func (s *Server) deregister(ctx context.Context, req *registrypb.DeregisterRequest) (*registrypb.DeregisterResponse, error) {
	r, err := s.store.WriteOnce(ctx, &fsmpb.Command{Op: &fsmpb.Command_Deregister{Deregister: &fsmpb.Deregister{
		Group: req.Group, Id: req.Id, Instance: req.Instance, KeepHeld: req.KeepHeld,
	}}}, attemptOf(ctx))
	if err != nil {
		return nil, err
	}
	return &registrypb.DeregisterResponse{Removed: r.Removed, Index: r.Index}, nil
}

// Heartbeat implements the public service.
func (s *Server) Heartbeat(ctx context.Context, req *registrypb.HeartbeatRequest) (*registrypb.HeartbeatResponse, error) {
	return onLeader(ctx, s, req, s.heartbeat, func(c *grpc.ClientConn) func(context.Context, *registrypb.HeartbeatRequest, ...grpc.CallOption) (*registrypb.HeartbeatResponse, error) {
		return registrypb.NewRegistryClient(c).Heartbeat
	})
}

func (s *Server) heartbeat(ctx context.Context, req *registrypb.HeartbeatRequest) (*registrypb.HeartbeatResponse, error) {
	lost, term, err := s.store.Renew(ctx, req.LeaseIds)
	if err != nil {
		return nil, err
	}
	return &registrypb.HeartbeatResponse{Lost: lost, Term: term, LeaderAddr: s.store.ClientAddr()}, nil
}

// HeartbeatStream implements the public service. A stream ends when the node
// stops; its client goes to another.
func (s *Server) HeartbeatStream(stream grpc.BidiStreamingServer[registrypb.HeartbeatRequest, registrypb.HeartbeatResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errStopping) })()
	// Recv does not see ctx: it ends with the stream, which ends with this call.
	requests, received := make(chan *registrypb.HeartbeatRequest), make(chan error, 1)
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case req := <-requests:
			resp, err := s.Heartbeat(ctx, req)
			if err != nil {
				return err
			}
			if err := stream.Send(resp); err != nil {
				return err
			}
		case err := <-received:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return toStatus(context.Cause(ctx))
		}
	}
}

// SetGroup implements the public service.
func (s *Server) SetGroup(ctx context.Context, req *registrypb.SetGroupRequest) (*registrypb.SetGroupResponse, error) {
	return onLeader(ctx, s, req, s.setGroup, func(c *grpc.ClientConn) func(context.Context, *registrypb.SetGroupRequest, ...grpc.CallOption) (*registrypb.SetGroupResponse, error) {
		return registrypb.NewRegistryClient(c).SetGroup
	})
}

func (s *Server) setGroup(ctx context.Context, req *registrypb.SetGroupRequest) (*registrypb.SetGroupResponse, error) {
	k := req.GetConfig().GetVirtualNodes()
	if k == 0 {
		k = ring.DefaultVirtualNodes
	}
	r, err := s.store.WriteOnce(ctx, &fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{
		Group: req.Group, VirtualNodes: k, Bound: req.GetConfig().GetBound(), ExpectedRevision: req.ExpectedRevision,
	}}}, attemptOf(ctx))
	if err != nil {
		return nil, err
	}
	return &registrypb.SetGroupResponse{Index: r.Index, Revision: r.Revision}, nil
}

// UpdateMember implements the public service.
func (s *Server) UpdateMember(ctx context.Context, req *registrypb.UpdateMemberRequest) (*registrypb.UpdateMemberResponse, error) {
	return onLeader(ctx, s, req, s.updateMember, func(c *grpc.ClientConn) func(context.Context, *registrypb.UpdateMemberRequest, ...grpc.CallOption) (*registrypb.UpdateMemberResponse, error) {
		return registrypb.NewRegistryClient(c).UpdateMember
	})
}

func (s *Server) updateMember(ctx context.Context, req *registrypb.UpdateMemberRequest) (*registrypb.UpdateMemberResponse, error) {
	op := &fsmpb.UpdateMember{Group: req.Group, Id: req.Id, Instance: req.Instance}
	if req.Weight != nil {
		if op.Weight = *req.Weight; op.Weight == 0 {
			return nil, &fsm.FieldError{Field: "weight", Limit: fmt.Sprintf("%d to %d", ring.MinWeight, ring.MaxWeight), Got: "0"}
		}
	}
	var err error
	if op.StatePlusOne, err = stateToLog(req.State); err != nil {
		return nil, err
	}
	if req.Hold != nil {
		if op.HoldMs = req.Hold.AsDuration().Milliseconds(); op.HoldMs == 0 { // which the log takes for none
			return nil, &fsm.FieldError{Field: "hold", Limit: "1s to 24h", Got: req.Hold.AsDuration().String()}
		}
	}
	r, err := s.store.WriteOnce(ctx, &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: op}}, attemptOf(ctx))
	if err != nil {
		return nil, err
	}
	return &registrypb.UpdateMemberResponse{Index: r.Index, Revision: r.Revision}, nil
}

// AcceptLoss implements the public service.
func (s *Server) AcceptLoss(ctx context.Context, req *registrypb.AcceptLossRequest) (*registrypb.AcceptLossResponse, error) {
	return onLeader(ctx, s, req, s.acceptLoss, func(c *grpc.ClientConn) func(context.Context, *registrypb.AcceptLossRequest, ...grpc.CallOption) (*registrypb.AcceptLossResponse, error) {
		return registrypb.NewRegistryClient(c).AcceptLoss
	})
}

func (s *Server) acceptLoss(ctx context.Context, req *registrypb.AcceptLossRequest) (*registrypb.AcceptLossResponse, error) {
	n, err := s.store.AcceptLoss(ctx, req.Group)
	if err != nil {
		return nil, err
	}
	return &registrypb.AcceptLossResponse{Silent: uint32(n)}, nil
}

// Guard implements the public service.
func (s *Server) Guard(ctx context.Context, req *registrypb.GuardRequest) (*registrypb.GuardResponse, error) {
	return onLeader(ctx, s, req, s.guard, func(c *grpc.ClientConn) func(context.Context, *registrypb.GuardRequest, ...grpc.CallOption) (*registrypb.GuardResponse, error) {
		return registrypb.NewRegistryClient(c).Guard
	})
}

func (s *Server) guard(ctx context.Context, req *registrypb.GuardRequest) (*registrypb.GuardResponse, error) {
	g, err := s.store.Guard(ctx, req.Group)
	if err != nil {
		return nil, err
	}
	resp := &registrypb.GuardResponse{
		Phase: registrypb.GuardResponse_Phase(g.Phase), Members: uint32(g.Members), Silent: uint32(g.Silent),
		Lost: uint32(g.Lost), Returned: uint32(g.Returned), Gone: uint32(g.Gone),
	}
	if g.Phase == store.GuardHolding {
		resp.HoldLeft = durationpb.New(g.HoldLeft)
	}
	return resp, nil
}
