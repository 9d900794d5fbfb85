package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

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

// callKey names the call that a forwarded attempt belongs to.
const callKey = "registry-call"

type attemptKey struct{}

// withAttempt lets the handlers of writes know which call this is an attempt of.
func withAttempt(ctx context.Context, a store.Attempt) context.Context {
	return context.WithValue(ctx, attemptKey{}, a)
}

func attemptOf(ctx context.Context) store.Attempt {
	a, _ := ctx.Value(attemptKey{}).(store.Attempt)
	return a
}

func (s *Server) newAttempt() store.Attempt {
	a := store.Attempt{Call: make([]byte, 12), Since: s.store.State().Index()}
	_, _ = rand.Read(a.Call) // never fails: documented
	return a
}

func attemptText(a store.Attempt) string {
	return fmt.Sprintf("%x %d %t", a.Call, a.Since, a.Again)
}

// forwardedAttempt reads what attemptText made; nodes of earlier versions send none.
func forwardedAttempt(ctx context.Context) (a store.Attempt) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(callKey); len(v) > 0 {
		if _, err := fmt.Sscanf(v[0], "%x %d %t", &a.Call, &a.Since, &a.Again); err != nil {
			return store.Attempt{}
		}
	}
	return a
}

func forwardedTo(ctx context.Context) (cluster string, forwarded bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(forwardedKey); len(v) > 0 {
		return v[0], true
	}
	return "", false
}

// onLeader runs a write where the leader is: here, or by one hop. Attempts that
// had no effect are made again for a while, because leaders change; so are
// those whose outcome is not known: they name their call, which takes effect once
// (see store.Attempt), and a repeated Remove at worst finds its own work done. What
// is answered in the end says which of the two it was.
func onLeader[Req, Resp any](
	ctx context.Context, s *Server, req Req,
	local func(context.Context, Req) (Resp, error),
	remote func(*grpc.ClientConn) func(context.Context, Req, ...grpc.CallOption) (Resp, error),
) (Resp, error) {
	if cluster, ok := forwardedTo(ctx); ok {
		if err := s.store.IsTarget("", cluster); err != nil {
			var none Resp
			return none, toStatus(err)
		}
		resp, err := local(withAttempt(ctx, forwardedAttempt(ctx)), req)
		return resp, toStatus(err)
	}
	if err := s.store.Diverged(); err != nil {
		var none Resp
		return none, toStatus(err)
	}
	wait, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	var unknown error
	a := s.newAttempt()
	for {
		resp, err := tryLeader(withAttempt(wait, a), s, req, local, remote)
		if err == nil || !retriable(err) {
			return resp, toStatus(err)
		}
		if outcomeUnknown(err) {
			unknown, a.Again = err, true
		}
		if !pause(wait, leaderRetry) {
			if unknown != nil {
				err = fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, stripStatus(unknown))
			}
			return resp, toStatus(err)
		}
	}
}

func tryLeader[Req, Resp any](
	ctx context.Context, s *Server, req Req,
	local func(context.Context, Req) (Resp, error),
	remote func(*grpc.ClientConn) func(context.Context, Req, ...grpc.CallOption) (Resp, error),
) (resp Resp, err error) {
	if s.store.IsLeader() {
		return local(ctx, req)
	}
	reign := s.reign.Load()
	if reign.leader == "" {
		return resp, fmt.Errorf("%w: none is known", store.ErrNotLeader)
	}
	conn, err := s.peers.conn(reign.leader)
	if err != nil {
		return resp, err
	}
	// A leader that stands still answers nobody: who waits for it goes on to
	// its successor.
	hop, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(reign.ctx, cancel)()
	resp, err = remote(conn)(metadata.AppendToOutgoingContext(hop, forwardedKey, s.store.ClusterID(), callKey, attemptText(attemptOf(ctx))), req)
	if err != nil && hop.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: the leader changed during the call", store.ErrOutcomeUnknown)
	} else if err != nil && ctx.Err() != nil && outcomeUnknown(err) {
		err = fmt.Errorf("%w: the leader did not answer in time", store.ErrOutcomeUnknown)
	}
	return resp, err
}

// reign is a stretch of one leader, as this node sees it.
type reign struct {
	leader string          // bind address; empty while none is known
	ctx    context.Context // ends with it
}

func (s *Server) beginReign(leader string) (end context.CancelFunc) {
	ctx, end := context.WithCancel(s.ctx)
	s.reign.Store(&reign{leader: leader, ctx: ctx})
	return end
}

// followLeader keeps s.reign. It looks at raft's own view instead of waiting to
// be told, because raft drops observations when they come too fast.
func (s *Server) followLeader() {
	end := func() {}
	defer func() { end() }()
	tick := time.NewTicker(leaderRetry)
	defer tick.Stop()
	for {
		if leader, _ := s.store.Leader(); s.reign.Load().leader != leader {
			end()
			end = s.beginReign(leader)
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// retriable says whether another attempt may go better.
func retriable(err error) bool {
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
