package rpc

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/audit"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// port is one of a node's two ports.
type port string

const (
	clientPort port = "client"
	bindPort   port = "bind"
)

// authorizer decides about every call of one port, after the request was parsed and
// before any work. A node that has not caught up cannot know whether tokens are on: it
// answers reads with an error of its own, and passes writes on to the leader, which
// decides; see onLeader.
type authorizer struct {
	store    *store.Store
	port     port
	sessions *auth.Sessions
	failures *auth.Failures
	count    *metrics.Auth
	audit    *audit.Log
}

// call is one call, and what was decided about it.
type call struct {
	*authorizer
	method     string
	permission permission
	headers    []string // authorization
	from       net.Addr
	last       atomic.Pointer[any] // the last request; nil before the first
	decision   atomic.Pointer[decision]
}

// decision is the last one about a call that was not refused.
type decision struct {
	caller auth.Caller
	// undecided: the node has not caught up, and a token may be needed.
	undecided bool
}

type callKey struct{}

// callOf returns the call that a handler was called for.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// callerOf returns who makes the call.
func callerOf(ctx context.Context) auth.Caller { return callOf(ctx).decision.Load().caller }

func (a *authorizer) call(ctx context.Context, method string) *call {
	c := &call{authorizer: a, method: method, permission: permissions[method]}
	if c.permission.access == byToken {
		c.headers = metadata.ValueFromIncomingContext(ctx, registrypb.AuthorizationHeader)
	}
	c.from = addrOf(ctx)
	return c
}

// addrOf is the address of the other end of a connection; nil: it is not known.
func addrOf(ctx context.Context) net.Addr {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr
	}
	return nil
}

// request is the last one, or nil before the first.
func (c *call) request() any {
	if last := c.last.Load(); last != nil {
		return *last
	}
	return nil
}

// decide returns the decision about a request, or why it is refused.
func (c *call) decide(req any, needs func(req any) []auth.Need) (*decision, error) {
	switch c.permission.access {
	case open, byPeers, byFirstToken: // of the first token the state machine decides
		return &decision{}, nil
	case byToken:
	default:
		return nil, auth.ErrDenied // the server has no such method
	}
	state, notReady := c.store.State(), c.store.Serving()
	switch {
	case notReady == nil:
	case !c.permission.early:
		return nil, notReady // tokens of its state may have been revoked since
	case !state.TokensOn():
		return &decision{undecided: true}, nil
	}
	caller, err := c.identify(state)
	if err == nil && needs != nil {
		err = caller.Check(needs(req)...)
	}
	if err != nil {
		return nil, err
	}
	return &decision{caller: caller}, nil
}

// identify returns the caller: that of the last decision, if it stands.
func (c *call) identify(state *fsm.State) (auth.Caller, error) {
	if d := c.decision.Load(); d != nil && d.stands(state) {
		return d.caller, nil
	}
	return auth.Identify(state, c.headers, time.Now())
}

// stands reports whether the decision would be the same by a state.
func (d *decision) stands(state *fsm.State) bool {
	return !d.undecided && d.caller.Stands(state, time.Now())
}

// authorize decides about a request and keeps the decision for its handler.
func (c *call) authorize(req any) error {
	c.last.Store(&req)
	d, err := c.decide(req, c.permission.needs)
	if err != nil {
		return c.failed(err)
	}
	c.decision.Store(d)
	return nil
}

// again decides again about the last request, if the decision no longer stands after
// its handler has waited: the token may have been revoked, or have expired.
func (c *call) again() error {
	if c.decision.Load().stands(c.store.State()) {
		return nil
	}
	return c.authorize(c.request())
}

// asLeader decides again about the request before this node does its work as the leader:
// at first its state may lack tokens that were created or revoked under the leader
// before. A node that does not lead only settles.
func (c *call) asLeader(ctx context.Context) error {
	if !c.store.IsLeader() {
		return c.settle()
	}
	if err := c.store.AwaitTerm(ctx); err != nil {
		return err
	}
	if err := c.again(); err != nil {
		return err
	}
	return c.settle()
}

// settle decides again about a request that was undecided. While it still is, the error
// is store.ErrNotLeader: only the leader decides.
func (c *call) settle() error {
	if !c.decision.Load().undecided {
		return nil
	}
	if err := c.authorize(c.request()); err != nil {
		return err
	}
	if c.decision.Load().undecided {
		return fmt.Errorf("%w: this node has not caught up", store.ErrNotLeader)
	}
	return nil
}

func (a *authorizer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c := a.call(ctx, info.FullMethod)
	ctx = context.WithValue(ctx, callKey{}, c)
	if err := c.authorize(req); err != nil {
		return nil, c.ended(ctx, req, false, toStatus(err))
	}
	act := c.isAct(req)
	resp, err := handler(ctx, req)
	return resp, c.ended(ctx, req, act, err)
}

// stream decides about each message that is received. The stream ends when the last
// decision no longer stands.
func (a *authorizer) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := a.call(stream.Context(), info.FullMethod)
	if c.permission.access != byToken {
		return handler(srv, stream)
	}
	s := &authorizedStream{ServerStream: stream, call: c}
	ctx, end := a.sessions.Add(context.WithValue(stream.Context(), callKey{}, c), s.recheck)
	defer end()
	s.ctx = ctx
	err := handler(srv, s)
	return c.ended(ctx, c.request(), c.isAct(c.request()), err)
}

// authorizedStream is the stream of one call.
type authorizedStream struct {
	grpc.ServerStream
	call *call
	ctx  context.Context
}

func (s *authorizedStream) Context() context.Context { return s.ctx }

// RecvMsg receives a request and decides about it.
func (s *authorizedStream) RecvMsg(m any) error {
	if err := s.receive(m); err != nil {
		return err
	}
	return toStatus(s.call.authorize(m))
}

func (s *authorizedStream) receive(m any) error {
	if !s.call.permission.waits {
		return s.ServerStream.RecvMsg(m)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServerStream.RecvMsg(m) }() // ends with the stream
	select {
	case err := <-done:
		return err
	case <-s.ctx.Done():
		return toStatus(context.Cause(s.ctx))
	}
}

// recheck decides about the last request again. Before the first one it only demands a
// valid token.
func (s *authorizedStream) recheck() (auth.Caller, error) {
	req, needs := s.call.request(), s.call.permission.needs
	if req == nil {
		needs = nil
	}
	d, err := s.call.decide(req, needs)
	if err != nil {
		return auth.Caller{}, err
	}
	return d.caller, nil
}

// followTokens ends the streams that a change of the tokens forbids.
func (s *Server) followTokens() {
	for {
		changed := s.store.Machine().TokensChanged()
		s.sessions.Recheck()
		select {
		case <-changed:
		case <-s.ctx.Done():
			return
		}
	}
}
