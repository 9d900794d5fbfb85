package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// forwardedKey is the metadata key of a forwarded call; the value is the id of the
// cluster that it is for.
const forwardedKey = "registry-forwarded"

// leaderWait bounds the time that a write waits for a reachable leader; then the client
// may try another node, which may reach it.
const leaderWait = 3 * time.Second

// leaderRetry is the delay between two attempts.
const leaderRetry = 25 * time.Millisecond

// forwardedTo reports whether another node forwarded the call. Only nodes reach the bind
// port; on the client port the mark has no effect.
func forwardedTo(ctx context.Context) (cluster string, forwarded bool) {
	if c := callOf(ctx); c == nil || c.port != bindPort {
		return "", false
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(forwardedKey); len(v) > 0 {
		return v[0], true
	}
	return "", false
}

// onLeader runs a call on the leader: here, or by one hop. It retries for leaderWait,
// because leaders change. It also retries when the outcome is unknown: writes are
// deduplicated by their request id, and a second Remove does no harm. The final error
// is ErrOutcomeUnknown if any attempt's outcome was unknown.
func onLeader[Req proto.Message, Resp any](ctx context.Context, s *Server, method string, req Req, local func(context.Context, Req) (*Resp, error)) (*Resp, error) {
	if cluster, ok := forwardedTo(ctx); ok {
		if err := s.store.IsTarget("", cluster); err != nil {
			return nil, toStatus(err)
		}
		if err := callOf(ctx).asLeader(ctx); err != nil {
			return nil, toStatus(err)
		}
		resp, err := local(ctx, req)
		return resp, toStatus(err)
	}
	if err := s.store.Diverged(); err != nil {
		return nil, toStatus(err)
	}
	limit := leaderWait
	if deadline, ok := ctx.Deadline(); ok { // the caller is to hear that there is no leader
		limit = min(limit, time.Until(deadline)*9/10)
	}
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var unknown error
	for {
		var resp *Resp
		err := callOf(ctx).asLeader(wait)
		if err == nil {
			resp, err = local(wait, req) // a follower validates the request, too
		}
		if errors.Is(err, store.ErrNotLeader) {
			resp, err = forward[Resp](wait, s, method, req)
		}
		setAgain := againOf(req)
		isWrite := setAgain != nil
		switch {
		case err == nil:
			return resp, nil
		case unknown != nil && method == registrypb.Cluster_Remove_FullMethodName && reasonOf(toStatus(err)) == registrypb.ErrorDetail_UNKNOWN_NODE:
			return new(Resp), nil // an earlier attempt removed it
		case !retriable(err) && unknown != nil && (isWrite && !rejected(err) || revoked(err)):
			return nil, toStatus(fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, stripStatus(err)))
		case !retriable(err):
			return nil, toStatus(err)
		case outcomeUnknown(err):
			unknown = err
			if isWrite {
				setAgain()
			}
		}
		if !pause(wait, leaderRetry) {
			if unknown != nil {
				err = fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, stripStatus(unknown))
			}
			return resp, toStatus(err)
		}
	}
}

// againOf returns what says in a write that an earlier attempt's outcome is unknown; nil
// for other requests.
func againOf(req proto.Message) func() {
	switch req := req.(type) {
	case registrypb.Write:
		return func() { req.SetAttempt(req.GetRequestId(), req.GetSince(), true) }
	case *registrypb.RegisterManyRequest:
		return req.SetAgain
	}
	return nil
}

// forward sends the call to the leader, until another one is known.
func forward[Resp any](ctx context.Context, s *Server, method string, req proto.Message) (*Resp, error) {
	term := s.term.Load()
	// A hung leader does not answer: the call is retried at its successor.
	hop, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(term.ctx, cancel)()
	resp, sent, err := forwardTo[Resp](hop, s, term.leader, method, req)
	switch {
	case err == nil || !sent:
		return resp, err
	case hop.Err() != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("%w: the leader changed during the call", store.ErrOutcomeUnknown)
	case ctx.Err() != nil && outcomeUnknown(err):
		return nil, fmt.Errorf("%w: the leader did not answer in time", store.ErrOutcomeUnknown)
	case status.Code(err) == codes.Unimplemented && method != registrypb.Registry_RegisterMany_FullMethodName: // clients register one by one then
		return nil, s.oldLeader(term.leader)
	}
	return nil, err
}

// oldLeader is the error of a call that the leader's version does not have.
func (s *Server) oldLeader(bind string) error {
	id, version := bind, "an earlier version"
	for n := range s.store.State().Nodes {
		if n.Bind == bind {
			id, version = n.ID, "version "+n.Version
		}
	}
	return fmt.Errorf("%w: the leader %s is of %s, which does not have this call; upgrade it", fsm.ErrFeatureLevel, id, version)
}

// forwardTo makes the one hop. sent is false only if the request was not sent, so that
// it had no effect.
func forwardTo[Resp any](ctx context.Context, s *Server, leader, method string, req proto.Message) (resp *Resp, sent bool, err error) {
	if leader == "" || leader == s.store.Self().Bind {
		return nil, false, fmt.Errorf("%w: none is known", store.ErrNotLeader)
	}
	conn, err := s.peers.conn(leader)
	if err != nil {
		return nil, false, err
	}
	var to peer.Peer // set once a stream to the leader exists
	resp = new(Resp)
	err = conn.Invoke(forwarding(ctx, s.store.ClusterID()), method, req, resp, grpc.Peer(&to))
	if err != nil && to.Addr == nil {
		return nil, false, fmt.Errorf("%w: it cannot be reached: %w", store.ErrNotLeader, stripStatus(err))
	}
	return resp, true, err
}

// forwarding marks a call as forwarded. It goes on with its caller's own token, by which
// the leader decides, and with its address, for the audit log.
func forwarding(ctx context.Context, cluster string) context.Context {
	marks := []string{forwardedKey, cluster}
	c := callOf(ctx)
	if c.from != nil {
		marks = append(marks, forwardedForKey, c.from.String())
	}
	for _, h := range c.headers {
		marks = append(marks, registrypb.AuthorizationHeader, h)
	}
	return metadata.AppendToOutgoingContext(ctx, marks...)
}

// leaderTerm is the time of one leader, as this node sees it.
type leaderTerm struct {
	leader string          // bind address; empty while none is known
	ctx    context.Context // ends with it
}

func (s *Server) beginTerm(leader string) (end context.CancelFunc) {
	ctx, end := context.WithCancel(s.forwards)
	s.term.Store(&leaderTerm{leader: leader, ctx: ctx})
	return end
}

// followLeader updates s.term until Close: a node that stops answers the calls under way.
func (s *Server) followLeader() {
	changes, stop := s.store.LeaderChanges()
	defer stop()
	end := func() {}
	defer func() { end() }()
	for {
		if leader, _ := s.store.Leader(); s.term.Load().leader != leader {
			before := end
			end = s.beginTerm(leader) // first, so that no call starts with an ended context
			before()
		}
		select {
		case <-changes:
		case <-s.forwards.Done():
			return
		}
	}
}

// retriable reports whether another attempt may succeed.
func retriable(err error) bool {
	if outcomeLost(err) {
		return false
	}
	if errors.Is(err, store.ErrNotLeader) || errors.Is(err, store.ErrBusy) || errors.Is(err, store.ErrOutcomeUnknown) {
		return true
	}
	switch reasonOf(err) {
	case registrypb.ErrorDetail_NO_LEADER, registrypb.ErrorDetail_OUTCOME_UNKNOWN:
		return true
	case registrypb.ErrorDetail_UNSPECIFIED:
		return status.Code(err) == codes.Unavailable
	}
	return false
}

// outcomeLost reports that no attempt can find out the outcome of an earlier one.
func outcomeLost(err error) bool {
	d := detailOf(err)
	return errors.Is(err, store.ErrForgotten) || d.GetReason() == registrypb.ErrorDetail_OUTCOME_UNKNOWN && d.GetField() != ""
}

// rejected reports whether the leader refused the command itself. One that refuses the
// caller has not looked whether an earlier attempt took effect.
func rejected(err error) bool {
	switch reasonOf(toStatus(err)) {
	case registrypb.ErrorDetail_UNAUTHENTICATED, registrypb.ErrorDetail_PERMISSION_DENIED:
		return false
	case registrypb.ErrorDetail_UNSPECIFIED, registrypb.ErrorDetail_MEMBERSHIP, registrypb.ErrorDetail_NOT_READY, registrypb.ErrorDetail_OUTCOME_UNKNOWN:
		return false
	}
	return true
}

// revoked reports whether there is no such token, which an earlier attempt may have
// revoked.
func revoked(err error) bool {
	return reasonOf(toStatus(err)) == registrypb.ErrorDetail_UNKNOWN_TOKEN
}

// outcomeUnknown reports whether the attempt may have had an effect, as when its
// connection broke.
func outcomeUnknown(err error) bool {
	if errors.Is(err, store.ErrOutcomeUnknown) {
		return true
	}
	switch reasonOf(err) {
	case registrypb.ErrorDetail_OUTCOME_UNKNOWN:
		return true
	case registrypb.ErrorDetail_UNSPECIFIED:
		_, fromWire := status.FromError(err)
		return fromWire
	}
	return false
}

// stripStatus returns the text of an error from the wire without its status.
func stripStatus(err error) error {
	if st, ok := status.FromError(err); ok {
		return errors.New(st.Message())
	}
	return err
}

// pause waits for d; false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
