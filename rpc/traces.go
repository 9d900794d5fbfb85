package rpc

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// Attributes of spans that the semantic conventions lack.
const (
	nodeAttribute  = attribute.Key("registry.node.id")
	indexAttribute = attribute.Key("registry.raft.index")
	termAttribute  = attribute.Key("registry.raft.term")
	batchAttribute = attribute.Key("registry.raft.entries")
)

// commitSpan is the name of the span of a write that waits for its commit.
const commitSpan = "raft.commit"

// propagator takes the trace's identity alone from the headers. Baggage may hold what callers
// want kept secret, and nothing here reads it.
var propagator = propagation.TraceContext{}

// Traced reports whether calls of a method are traced. Heartbeats would be most of all
// spans, watches end with their clients, and the nodes' own calls belong to no caller. A method
// that there is not is anybody's text.
func Traced(method string) bool {
	switch method {
	case registrypb.Registry_Heartbeat_FullMethodName, registrypb.Registry_HeartbeatStream_FullMethodName, registrypb.Registry_Watch_FullMethodName:
		return false
	}
	_, known := permissions[method]
	return known && strings.HasPrefix(method, "/registry.v1.")
}

// ClientTraces returns a dial option that makes a span for each call that a connection carries,
// and passes the context of the trace on.
func ClientTraces(provider trace.TracerProvider) grpc.DialOption {
	return grpc.WithStatsHandler(otelgrpc.NewClientHandler(traceOptions(provider)...))
}

func traceOptions(provider trace.TracerProvider, attributes ...attribute.KeyValue) []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(provider), otelgrpc.WithPropagators(propagator), otelgrpc.WithMeterProvider(metricnoop.NewMeterProvider()),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return Traced(info.FullMethodName) }),
		otelgrpc.WithSpanAttributes(attributes...),
	}
}

// traces makes the spans of a node that gRPC does not make. Without a tracer it makes none,
// and costs nothing.
type traces struct {
	tracer trace.Tracer // nil: none
	node   attribute.KeyValue
}

func newTraces(provider trace.TracerProvider, node string) traces {
	if provider == nil {
		return traces{}
	}
	return traces{tracer: provider.Tracer("github.com/werbenhu/registry/rpc"), node: nodeAttribute.String(node)}
}

// serverOptions make a span for each call at a port.
func (t traces) serverOptions(provider trace.TracerProvider) []grpc.ServerOption {
	if t.tracer == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(traceOptions(provider, t.node)...))}
}

// request begins the span of a call over HTTP. The span has the route and not the URL, whose
// query holds callers' keys.
func (t traces) request(r *http.Request, e *endpoint) (_ *http.Request, end func(code int)) {
	if t.tracer == nil || !Traced(e.method) {
		return r, func(int) {}
	}
	method, route, _ := strings.Cut(e.pattern, " ")
	ctx := propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := t.tracer.Start(ctx, e.pattern, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		semconv.HTTPRequestMethodKey.String(method), semconv.HTTPRoute(route), t.node))
	return r.WithContext(ctx), func(code int) {
		span.SetAttributes(semconv.HTTPResponseStatusCode(code))
		if code >= http.StatusInternalServerError {
			span.SetStatus(otelcodes.Error, "")
		}
		span.End()
	}
}

// commit begins the span of writes that wait for their commit, on the leader.
func (s *Server) commit(ctx context.Context) (context.Context, trace.Span) {
	if s.traces.tracer == nil || !s.store.IsLeader() {
		return ctx, nil
	}
	return s.traces.tracer.Start(ctx, commitSpan, trace.WithAttributes(s.traces.node))
}

// committed ends the span, with the index of the last entry.
func (s *Server) committed(span trace.Span, index uint64, entries int, err error) {
	if span == nil {
		return
	}
	span.SetAttributes(termAttribute.Int64(int64(s.store.Term())), batchAttribute.Int(entries))
	if index > 0 {
		span.SetAttributes(indexAttribute.Int64(int64(index)))
	}
	if err != nil {
		span.SetStatus(otelcodes.Error, err.Error())
	}
	span.End()
}

// writeOnce is the store's WriteOnce with a span.
func (s *Server) writeOnce(ctx context.Context, cmd *fsmpb.Command, request store.Request) (fsm.Result, error) {
	ctx, span := s.commit(ctx)
	r, err := s.store.WriteOnce(ctx, cmd, request)
	s.committed(span, r.Index, 1, err)
	return r, err
}

// writeMany is the store's WriteMany with a span.
func (s *Server) writeMany(ctx context.Context, writes []store.Write) []store.Outcome {
	ctx, span := s.commit(ctx)
	outcomes := s.store.WriteMany(ctx, writes)
	if span == nil {
		return outcomes
	}
	var index uint64
	var err error
	for _, out := range outcomes {
		if index = max(index, out.Result.Index); err == nil {
			err = out.Err
		}
	}
	s.committed(span, index, len(writes), err)
	return outcomes
}
