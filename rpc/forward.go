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

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// forwardedKey marks a call that has made its one hop; its value is the id of
// the cluster that the call is for.
const forwardedKey = "registry-forwarded"

// leaderWait bounds how long a write waits for a leader that can be reached;
// after it the client may try another node, which may see more.
const leaderWait = 3 * time.Second

// leaderRetry is the pause between two attempts.
const leaderRetry = 25 * time.Millisecond

func forwardedTo(ctx context.Context) (cluster string, forwarded bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(forwardedKey); len(v) > 0 {
		return v[0], true
	}
	return "", false
}

// onLeader runs a call where the leader is: here, or by one hop. Attempts that
// had no effect are repeated for a while, because leaders change. So are those
// whose outcome is unknown: writes are deduplicated by their request id, and a
// repeated Remove at worst finds its own work done. The error in the end says
// which of the two it was.
func onLeader[Req proto.Message, Resp any](ctx context.Context, s *Server, method string, req Req, local func(context.Context, Req) (*Resp, error)) (*Resp, error) {
	if cluster, ok := forwardedTo(ctx); ok {
		if err := s.store.IsTarget("", cluster); err != nil {
			return nil, toStatus(err)
		}
		resp, err := local(ctx, req)
		return resp, toStatus(err)
	}
	if err := s.store.Diverged(); err != nil {
		return nil, toStatus(err)
	}
	wait, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	var unknown error
	for {
		resp, err := local(wait, req) // also checks the request where this node does not lead
		if errors.Is(err, store.ErrNotLeader) {
			resp, err = forward[Resp](wait, s, method, req)
		}
		w, isWrite := any(req).(registrypb.Write)
		switch {
		case err == nil:
			return resp, nil
		case !retriable(err) && isWrite && unknown != nil && !aboutCommand(err):
			return nil, toStatus(fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, stripStatus(err)))
		case !retriable(err):
			return nil, toStatus(err)
		case outcomeUnknown(err):
			unknown = err
			if isWrite {
				w.SetAttempt(w.GetRequestId(), w.GetSince(), true)
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

// forward sends the call to the leader.
func forward[Resp any](ctx context.Context, s *Server, method string, req proto.Message) (*Resp, error) {
	term := s.term.Load()
	// A leader that hangs answers nobody: the call goes on to its successor.
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
	}
	return nil, err
}

// forwardTo makes the one hop. sent is false only when the request cannot have
// left; the error then is that nothing was done.
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
	err = conn.Invoke(metadata.AppendToOutgoingContext(ctx, forwardedKey, s.store.ClusterID()), method, req, resp, grpc.Peer(&to))
	if err != nil && to.Addr == nil {
		return nil, false, fmt.Errorf("%w: it cannot be reached: %w", store.ErrNotLeader, stripStatus(err))
	}
	return resp, true, err
}

// leaderTerm is a stretch of one leader, as this node sees it.
type leaderTerm struct {
	leader string          // bind address; empty while none is known
	ctx    context.Context // ends with it
}

func (s *Server) beginTerm(leader string) (end context.CancelFunc) {
	ctx, end := context.WithCancel(s.ctx)
	s.term.Store(&leaderTerm{leader: leader, ctx: ctx})
	return end
}

// followLeader keeps s.term.
func (s *Server) followLeader() {
	changes, stop := s.store.LeaderChanges()
	defer stop()
	end := func() {}
	defer func() { end() }()
	for {
		if leader, _ := s.store.Leader(); s.term.Load().leader != leader {
			before := end
			end = s.beginTerm(leader) // first: who loads an ended one gives up at once
			before()
		}
		select {
		case <-changes:
		case <-s.ctx.Done():
			return
		}
	}
}

// retriable says whether another attempt may go better.
func retriable(err error) bool {
	if forgotten(err) {
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

// forgotten says that no attempt can find out what became of an earlier one.
func forgotten(err error) bool {
	d := detailOf(err)
	return errors.Is(err, store.ErrForgotten) || d.GetReason() == registrypb.ErrorDetail_OUTCOME_UNKNOWN && d.GetField() != ""
}

// aboutCommand says whether the leader decided about the command itself.
func aboutCommand(err error) bool {
	switch reasonOf(toStatus(err)) {
	case registrypb.ErrorDetail_UNSPECIFIED, registrypb.ErrorDetail_MEMBERSHIP, registrypb.ErrorDetail_NOT_READY, registrypb.ErrorDetail_OUTCOME_UNKNOWN:
		return false
	}
	return true
}

// outcomeUnknown says whether the attempt may have had an effect. A connection
// that broke may have carried the request.
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

// stripStatus keeps the text of an error from the wire without its status.
func stripStatus(err error) error {
	if st, ok := status.FromError(err); ok {
		return errors.New(st.Message())
	}
	return err
}

// pause waits between two attempts; false when ctx ended.
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
