package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/lease"
)

// write runs a write that is deduplicated by its request id.
func write[Req registrypb.Write, Resp any](ctx context.Context, s *Server, method string, req Req, cmd *fsmpb.Command, answer func(fsm.Result) *Resp) (*Resp, error) {
	s.identify(ctx, req)
	return onLeader(ctx, s, method, req, func(ctx context.Context, req Req) (*Resp, error) {
		request := writeRequest(method, req)
		setCaller(cmd, callerOf(ctx))
		r, err := s.writeOnce(ctx, cmd, request)
		if err != nil {
			return nil, err
		}
		return answer(r), nil
	})
}

// setCaller sets whose registrations a command makes, and may change.
func setCaller(cmd *fsmpb.Command, caller auth.Caller) {
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Register:
		op.Register.Token, op.Register.AnyOwner = caller.Owner(), caller.AnyOwner(op.Register.Group)
	case *fsmpb.Command_Deregister:
		op.Deregister.Token, op.Deregister.AnyOwner = caller.Owner(), caller.AnyOwner(op.Deregister.Group)
	case *fsmpb.Command_UpdateMember:
		op.UpdateMember.Token, op.UpdateMember.AnyOwner = caller.Owner(), caller.AnyOwner(op.UpdateMember.Group)
	}
}

// identify sets a request id if the client sent none: it covers this node's attempts.
func (s *Server) identify(ctx context.Context, req registrypb.Write) {
	if _, forwarded := forwardedTo(ctx); forwarded || len(req.GetRequestId()) > 0 {
		return
	}
	id := make([]byte, store.RequestIDSize)
	_, _ = rand.Read(id) // never fails: documented
	req.SetAttempt(id, s.store.State().Index(), false)
}

// writeRequest has the hash on followers, too: one may begin to lead before it writes.
func writeRequest(method string, req registrypb.Write) store.Request {
	return store.Request{ID: req.GetRequestId(), Since: req.GetSince(), Again: req.GetAgain(), Hash: requestHash(method, req)}
}

// requestHash hashes the method and the values as the caller sent them, so a change of
// a default does not change it.
func requestHash(method string, req registrypb.Write) uint64 {
	id, since, again := req.GetRequestId(), req.GetSince(), req.GetAgain()
	req.SetAttempt(nil, 0, false)
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte(method), req)
	req.SetAttempt(id, since, again)
	if err != nil {
		return 0 // invalid UTF-8, which validation refuses
	}
	return xxhash.Sum64(data)
}

// Register implements the public service.
func (s *Server) Register(ctx context.Context, req *registrypb.RegisterRequest) (*registrypb.RegisterResponse, error) {
	s.identify(ctx, req)
	cmd, err := registerCommand(req)
	if err != nil {
		return nil, toStatus(err)
	}
	return write(ctx, s, registrypb.Registry_Register_FullMethodName, req, cmd, func(r fsm.Result) *registrypb.RegisterResponse {
		return registered(r, cmd.GetRegister().Instance)
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
	instance := req.Instance
	if len(instance) == 0 {
		instance = req.RequestId
	}
	state, err := stateToLog(req.State)
	return &fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: req.Group, Id: req.Id, Addr: req.Addr, Weight: weight, Meta: metaToLog(req.Meta),
		TtlMs: ttl.Milliseconds(), Instance: instance, TakeOver: req.TakeOver,
		StatePlusOne: state,
	}}}, err
}

// Deregister implements the public service.
func (s *Server) Deregister(ctx context.Context, req *registrypb.DeregisterRequest) (*registrypb.DeregisterResponse, error) {
	cmd := &fsmpb.Command{Op: &fsmpb.Command_Deregister{Deregister: &fsmpb.Deregister{
		Group: req.Group, Id: req.Id, Instance: req.Instance, KeepHeld: req.KeepHeld,
	}}}
	return write(ctx, s, registrypb.Registry_Deregister_FullMethodName, req, cmd, func(r fsm.Result) *registrypb.DeregisterResponse {
		return &registrypb.DeregisterResponse{Removed: r.Removed, Index: r.Index}
	})
}

// Heartbeat implements the public service.
func (s *Server) Heartbeat(ctx context.Context, req *registrypb.HeartbeatRequest) (*registrypb.HeartbeatResponse, error) {
	return onLeader(ctx, s, registrypb.Registry_Heartbeat_FullMethodName, req, s.heartbeat)
}

func (s *Server) heartbeat(ctx context.Context, req *registrypb.HeartbeatRequest) (*registrypb.HeartbeatResponse, error) {
	var allowed func(group, owner string) bool
	if caller := callerOf(ctx); caller.Token != nil {
		allowed = caller.Renews
	}
	lost, term, err := s.store.Renew(ctx, req.LeaseIds, allowed)
	if err != nil {
		return nil, err
	}
	return &registrypb.HeartbeatResponse{Lost: lost, Term: term, LeaderAddr: s.store.ClientAddr()}, nil
}

// HeartbeatStream implements the public service. A stream ends when the node stops; its
// client connects to another.
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
	k := req.GetConfig().GetVirtualNodes()
	if k == 0 {
		k = ring.DefaultVirtualNodes
	}
	cmd := &fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{
		Group: req.Group, VirtualNodes: k, Bound: req.GetConfig().GetBound(), ExpectedRevision: req.ExpectedRevision,
	}}}
	return write(ctx, s, registrypb.Registry_SetGroup_FullMethodName, req, cmd, func(r fsm.Result) *registrypb.SetGroupResponse {
		return &registrypb.SetGroupResponse{Index: r.Index, Revision: r.Revision}
	})
}

// DeleteGroup implements the public service.
func (s *Server) DeleteGroup(ctx context.Context, req *registrypb.DeleteGroupRequest) (*registrypb.DeleteGroupResponse, error) {
	cmd := &fsmpb.Command{Op: &fsmpb.Command_DeleteGroup{DeleteGroup: &fsmpb.DeleteGroup{
		Group: req.Group, Force: req.Force, ExpectedRevision: req.ExpectedRevision, NoFences: req.NoFences,
	}}}
	return write(ctx, s, registrypb.Registry_DeleteGroup_FullMethodName, req, cmd, func(r fsm.Result) *registrypb.DeleteGroupResponse {
		return &registrypb.DeleteGroupResponse{Index: r.Index, Members: uint32(r.Members)}
	})
}

// UpdateMember implements the public service.
func (s *Server) UpdateMember(ctx context.Context, req *registrypb.UpdateMemberRequest) (*registrypb.UpdateMemberResponse, error) {
	cmd, err := updateCommand(req)
	if err != nil {
		return nil, toStatus(err)
	}
	return write(ctx, s, registrypb.Registry_UpdateMember_FullMethodName, req, cmd, func(r fsm.Result) *registrypb.UpdateMemberResponse {
		return &registrypb.UpdateMemberResponse{Index: r.Index, Revision: r.Revision}
	})
}

func updateCommand(req *registrypb.UpdateMemberRequest) (*fsmpb.Command, error) {
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
		if op.HoldMs = req.Hold.AsDuration().Milliseconds(); op.HoldMs == 0 { // which is none in the log
			return nil, &fsm.FieldError{Field: "hold", Limit: "1s to 24h", Got: req.Hold.AsDuration().String()}
		}
	}
	return &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: op}}, nil
}

// AcceptLoss implements the public service.
func (s *Server) AcceptLoss(ctx context.Context, req *registrypb.AcceptLossRequest) (*registrypb.AcceptLossResponse, error) {
	return onLeader(ctx, s, registrypb.Registry_AcceptLoss_FullMethodName, req, s.acceptLoss)
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
	return onLeader(ctx, s, registrypb.Registry_Guard_FullMethodName, req, s.guard)
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
	if g.Phase == lease.Holding {
		resp.HoldLeft = durationpb.New(g.HoldLeft)
	}
	return resp, nil
}
