package rpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/metrics"
)

// Limits of the gRPC calls of a port, over all connections.
const (
	// MaxStreams bounds the open streams of clients: two for each connection that a
	// node takes.
	MaxStreams = 131_072
	// MaxCalls bounds the other calls of clients that are under way. Streams do not
	// count, so that they cannot keep an administrator out.
	MaxCalls = 131_072
	// RequestTime bounds the wait for the request of a call that has one, from its
	// headers on.
	RequestTime = 30 * time.Second
)

// errFull: the node has as many calls or streams as it takes. Another node may have room.
var errFull = errors.New("the node is at its limit")

// fullError is an errFull that names the limit.
type fullError struct {
	of   string // streams, calls or lists of targets
	most int64
}

func (e *fullError) Error() string { return fmt.Sprintf("%s: %d %s", errFull, e.most, e.of) }

// Is makes errors.Is find errFull.
func (e *fullError) Is(target error) bool { return target == errFull }

// errLate: the request of a call did not arrive in time.
var errLate = errors.New("the request did not arrive in time")

// bound counts up to a limit.
type bound struct {
	of   string
	most int64
	n    atomic.Int64
}

// enter adds one, or fails at the limit.
func (b *bound) enter() error {
	if b.n.Add(1) > b.most {
		b.n.Add(-1)
		return &fullError{b.of, b.most}
	}
	return nil
}

func (b *bound) leave() { b.n.Add(-1) }

// admission bounds what the calls of a gRPC server hold before their handlers and
// interceptors run: how many there are, and how long each may wait for its request.
type admission struct {
	streams, calls bound
	wait           time.Duration
	refused        *metrics.Calls
}

func newAdmission(l Limits, refused *metrics.Calls) *admission {
	return &admission{
		streams: bound{of: "streams", most: int64(l.Streams)}, calls: bound{of: "calls", most: int64(l.Calls)},
		wait: l.RequestTime, refused: refused,
	}
}

// ofNodes is without the limits of clients: what a node passes on has passed them.
func (l Limits) ofNodes() Limits {
	l.Streams, l.Calls = math.MaxInt, math.MaxInt
	return l
}

// ender is what gRPC's stream of a call is: it can be ended while its handler waits for
// the request. The interface is not part of gRPC's documents, so a call without it fails.
type ender interface {
	WriteStatus(*status.Status) error
}

// inTime receives the request of a call.
func (a *admission) inTime(ctx context.Context, receive func(any) error, req any) error {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(ender)
	if !ok {
		return errors.New("rpc: the wait for a request cannot be bounded")
	}
	timer := time.AfterFunc(a.wait, func() {
		a.refused.Refused("late").Inc()  // before the caller knows
		_ = stream.WriteStatus(a.late()) // fails with the connection
	})
	err := receive(req)
	if !timer.Stop() {
		return a.late().Err()
	}
	return err
}

func (a *admission) late() *status.Status {
	return status.Convert(toStatus(fmt.Errorf("%w: %v", errLate, a.wait)))
}

// enter counts a call in, and says why if it is refused.
func (a *admission) enter(b *bound) error {
	err := b.enter()
	if err != nil {
		a.refused.Refused(b.of).Inc()
	}
	return toStatus(err)
}

func (a *admission) unary(h grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, receive func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		if err := a.enter(&a.calls); err != nil {
			return nil, err
		}
		defer a.calls.leave()
		return h(srv, ctx, func(req any) error { return a.inTime(ctx, receive, req) }, interceptor)
	}
}

func (a *admission) stream(d grpc.StreamDesc) grpc.StreamHandler {
	return func(srv any, stream grpc.ServerStream) error {
		if err := a.enter(&a.streams); err != nil {
			return err
		}
		defer a.streams.leave()
		if !d.ClientStreams {
			stream = &oneRequest{ServerStream: stream, admission: a}
		}
		return d.Handler(srv, stream)
	}
}

// oneRequest is a stream whose client sends one message.
type oneRequest struct {
	grpc.ServerStream
	*admission
}

// RecvMsg implements grpc.ServerStream.
func (s *oneRequest) RecvMsg(m any) error {
	return s.inTime(s.Context(), s.ServerStream.RecvMsg, m)
}

// admitting is a gRPC server whose services' calls pass an admission.
type admitting struct {
	*grpc.Server
	*admission
}

// RegisterService implements grpc.ServiceRegistrar.
func (a admitting) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = slices.Clone(d.Methods), slices.Clone(d.Streams)
	for i, m := range d.Methods {
		d.Methods[i].Handler = a.unary(m.Handler)
	}
	for i, s := range d.Streams {
		d.Streams[i].Handler = a.stream(s)
	}
	a.Server.RegisterService(&d, impl)
}
