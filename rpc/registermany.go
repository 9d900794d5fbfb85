package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// RegisterMany implements the public service.
func (s *Server) RegisterMany(ctx context.Context, req *registrypb.RegisterManyRequest) (*registrypb.RegisterManyResponse, error) {
	if n := len(req.Registrations); n < 1 || n > fsm.MaxBatch {
		got := "none"
		if n > 0 {
			got = "more" // which are not parsed: see frameCodec
		}
		return nil, toStatus(&fsm.FieldError{Field: "registrations", Limit: fmt.Sprintf("1 to %d", fsm.MaxBatch), Got: got})
	}
	for _, r := range req.Registrations {
		s.identify(ctx, r)
	}
	resp, err := onLeader(ctx, s, registrypb.Registry_RegisterMany_FullMethodName, req, s.registerMany)
	auditMany(ctx, req, resp)
	return resp, err
}

// auditMany tells the audit log of the registrations that were refused, as of calls.
func auditMany(ctx context.Context, req *registrypb.RegisterManyRequest, resp *registrypb.RegisterManyResponse) {
	for i := range min(len(req.Registrations), len(resp.GetResults())) {
		f := resp.Results[i].GetFailure()
		if f.GetDetail().GetReason() != registrypb.ErrorDetail_NOT_OWNER {
			continue
		}
		if st, err := status.New(codes.Code(f.Code), f.Message).WithDetails(f.Detail); err == nil { // never fails: it is not OK
			_ = callOf(ctx).ended(ctx, req.Registrations[i], false, st.Err())
		}
	}
}

func (s *Server) registerMany(ctx context.Context, req *registrypb.RegisterManyRequest) (*registrypb.RegisterManyResponse, error) {
	if !s.store.IsLeader() {
		return nil, store.ErrNotLeader
	}
	results := make([]*registrypb.RegisterResult, len(req.Registrations))
	var writes []store.Write
	var at []int // of each write
	owner := callerOf(ctx).Owner()
	for i, r := range req.Registrations {
		cmd, err := registerCommand(r)
		if err != nil {
			results[i] = failure(r, err)
			continue
		}
		// Not AnyOwner: a registration of another token's member is an administrative
		// act, which the audit log has one by one.
		cmd.GetRegister().Token = owner
		writes, at = append(writes, store.Write{Command: cmd, Request: writeRequest(registrypb.Registry_Register_FullMethodName, r)}), append(at, i)
	}
	for i, out := range s.writeMany(ctx, writes) {
		if out.Err != nil {
			results[at[i]] = failure(req.Registrations[at[i]], out.Err)
			continue
		}
		results[at[i]] = &registrypb.RegisterResult{Result: &registrypb.RegisterResult_Registered{
			Registered: registered(out.Result, writes[i].Command.GetRegister().Instance),
		}}
	}
	return &registrypb.RegisterManyResponse{Results: results}, nil
}

// registered answers a registration.
func registered(r fsm.Result, instance []byte) *registrypb.RegisterResponse {
	return &registrypb.RegisterResponse{LeaseId: r.LeaseID, Ttl: durationpb.New(r.TTL), Index: r.Index, Instance: instance, Revision: r.Revision}
}

// failure is the error of one registration. As in onLeader, it does not hide that an
// earlier attempt may have had an effect.
func failure(r *registrypb.RegisterRequest, err error) *registrypb.RegisterResult {
	if r.Again && !outcomeUnknown(err) && (retriable(err) || !rejected(err)) {
		err = fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, err)
	}
	st := status.Convert(toStatus(err))
	return &registrypb.RegisterResult{Result: &registrypb.RegisterResult_Failure{Failure: &registrypb.Failure{
		Code: uint32(st.Code()), Message: st.Message(), Detail: detailOf(st.Err()),
	}}}
}

// ofRegistrations demands the right on the group of every registration, each group once.
func ofRegistrations(req any) (needs []auth.Need) {
	groups := make(map[string]bool)
	for _, r := range req.(*registrypb.RegisterManyRequest).GetRegistrations() {
		if !groups[r.GetGroup()] {
			groups[r.GetGroup()] = true
			needs = append(needs, ofGroup(fsm.Register, r.GetGroup())...)
		}
	}
	return needs
}
