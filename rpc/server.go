package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/werbenhu/registry/rpc/audit"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/rpc/muxcreds"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// Limits of gRPC connections.
const (
	// MaxHeaders bounds the headers of a call, in bytes.
	MaxHeaders = 32 << 10
	// MaxClientStreams bounds the calls and streams of one client's connection: a watch
	// of each of 1,000 groups, and as many calls. Each may hold a request of MaxRequest.
	MaxClientStreams = 2_000
	// MaxNodeStreams is more: a node passes on the calls of all its clients by one
	// connection.
	MaxNodeStreams = 10_000
	// IdleTime is how long a connection without calls stays.
	IdleTime = time.Hour
)

// Config of a Server.
type Config struct {
	Store  *store.Store
	Peers  *Peers
	Logger *slog.Logger
	// Metrics counts calls; nil: the counts are not exported.
	Metrics *metrics.Node
	// Gatherer serves GET /metrics; nil: there is no such page.
	Gatherer prometheus.Gatherer
	// Limits of messages that are sent; zero: the defaults.
	Limits Limits
	// Audit has the administrative acts and the refusals; nil: nobody has.
	Audit *audit.Log
	// Diagnosis is what the program adds to a diagnosis.
	Diagnosis Diagnosis
	// TracerProvider makes the spans of calls; nil: there are none.
	TracerProvider trace.TracerProvider
}

// Server serves both ports.
type Server struct {
	registrypb.UnimplementedRegistryServer
	registrypb.UnimplementedClusterServer

	store *store.Store
	peers *Peers
	log   *slog.Logger

	metrics *metrics.Node
	traces  traces
	limits  Limits
	pages   pages

	calls   chain // of the client port
	clients *grpc.Server
	nodes   *grpc.Server
	http    *httpServer
	watches httpWatches
	health  *healthService

	sessions *auth.Sessions
	failures *auth.Failures
	audit    *audit.Log

	diagnosis  Diagnosis
	gatherer   prometheus.Gatherer // nil: there are no metrics to show
	diagnosing atomic.Bool

	term      atomic.Pointer[leaderTerm]
	nodesRing atomic.Pointer[nodesRing]

	ctx    context.Context // ends with Drain or Close: streams end with it
	cancel context.CancelFunc
	// forwards ends with Close: until then calls under way go to the leader, also to a
	// later one.
	forwards    context.Context
	endForwards context.CancelFunc
	wg          sync.WaitGroup
}

// New returns a server without listeners. It fails if a method has no permission.
func New(cfg Config) (*Server, error) {
	s := &Server{store: cfg.Store, peers: cfg.Peers, log: cfg.Logger, health: newHealthService(cfg.Store), metrics: cfg.Metrics, limits: cfg.Limits.withDefaults(), sessions: auth.NewSessions(), failures: auth.NewFailures(), audit: cfg.Audit, diagnosis: cfg.Diagnosis, gatherer: cfg.Gatherer}
	if s.metrics == nil {
		s.metrics = metrics.New()
	}
	s.traces = newTraces(cfg.TracerProvider, s.store.ID())
	spans := s.traces.serverOptions(cfg.TracerProvider)
	calls := s.metrics.Calls
	clientCalls, nodeCalls := calls.Interceptors(), calls.Interceptors()
	ctx, cancel := context.WithCancelCause(context.Background())
	s.ctx, s.cancel = ctx, func() { cancel(errStopping) }
	s.forwards, s.endForwards = context.WithCancel(context.Background())
	cluster := &identity{store: s.store}
	s.calls = newChain(clientCalls, cluster, s.authorizer(clientPort))
	clients := newGRPCServer(MaxClientStreams, s.calls, newAdmission(s.limits, calls), spans...)
	s.register(clients)
	grpc_health_v1.RegisterHealthServer(clients, s.health)
	reflection.Register(clients)
	nodes := newGRPCServer(MaxNodeStreams, newChain(nodeCalls, cluster, s.authorizer(bindPort)), newAdmission(s.limits.ofNodes(), calls), spans...)
	s.register(nodes)
	peerpb.RegisterPeerServer(nodes, &peerServer{server: s})
	s.clients, s.nodes = clients.Server, nodes.Server
	if err := checkPermissions(map[port]*grpc.Server{clientPort: s.clients, bindPort: s.nodes}); err != nil {
		s.cancel()
		s.endForwards()
		return nil, err
	}
	calls.AddMethods(clientCalls, metrics.ClientPort, s.clients)
	calls.AddMethods(nodeCalls, metrics.NodePort, s.nodes)
	s.http = newHTTPServer(s, cfg.Gatherer)
	s.health.update()
	s.term.Store(&leaderTerm{ctx: s.forwards})
	s.wg.Go(s.followReadiness)
	s.wg.Go(s.followLeader)
	s.wg.Go(s.followTokens)
	return s, nil
}

// register adds the services that both ports have.
func (s *Server) register(to grpc.ServiceRegistrar) {
	registrypb.RegisterRegistryServer(to, s)
	registrypb.RegisterClusterServer(to, s)
	registrypb.RegisterTokensServer(to, tokensServer{Server: s})
}

func (s *Server) authorizer(port port) *authorizer {
	return &authorizer{store: s.store, port: port, sessions: s.sessions, failures: s.failures, count: s.metrics.Auth, audit: s.audit}
}

func newChain(calls *metrics.Interceptors, cluster *identity, callers *authorizer) chain {
	return chain{
		unary:  []grpc.UnaryServerInterceptor{calls.Unary, cluster.unary, callers.unary},
		stream: []grpc.StreamServerInterceptor{calls.Stream, cluster.stream, callers.stream},
	}
}

// newGRPCServer is the server of a port, without services.
func newGRPCServer(streams uint32, c chain, a *admission, more ...grpc.ServerOption) admitting {
	return admitting{grpc.NewServer(slices.Concat(connOptions(streams), c.options(), more)...), a}
}

// connOptions bound what a caller may do with a connection before it is known.
func connOptions(streams uint32) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(muxcreds.Finished{}),
		grpc.MaxRecvMsgSize(MaxRequest),
		grpc.MaxHeaderListSize(MaxHeaders),
		grpc.MaxConcurrentStreams(streams),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: IdleTime}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}
}

// ServeNodes serves the nodes' calls until Close.
func (s *Server) ServeNodes(ln net.Listener) {
	s.wg.Go(func() { s.logEnd("nodes", s.nodes.Serve(ln)) })
}

// ServeClients serves gRPC and HTTP/1.1 on the client port's listeners until Close.
func (s *Server) ServeClients(grpcListener, httpListener net.Listener) {
	s.wg.Go(func() { s.logEnd("clients", s.clients.Serve(grpcListener)) })
	s.wg.Go(func() { s.logEnd("http", s.http.serve(httpListener)) })
}

func (s *Server) logEnd(what string, err error) {
	if err != nil && s.ctx.Err() == nil {
		s.log.Error("server ended", "server", what, "error", err)
	}
}

// followReadiness tells the watchers of the health service, and drops the pages of lists when the
// node stops answering because its state is wrong.
func (s *Server) followReadiness() {
	for {
		answering, changed := s.store.Answering(), s.store.ServingChanged()
		s.health.update()
		select {
		case <-changed:
		case <-answering.Done():
		case <-s.ctx.Done():
			return
		}
		if answering.Err() != nil {
			s.pages.forget()
		}
	}
}

// Drain sets health to not serving, ends the streams and waits, for at most d, until the
// clients' calls in progress are answered.
func (s *Server) Drain(d time.Duration) {
	s.health.Shutdown()
	s.cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.clients.GracefulStop()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.clients.Stop()
		<-done
	}
}

// Close stops both servers and waits for their goroutines.
func (s *Server) Close() error {
	s.cancel()
	s.endForwards()
	s.health.Shutdown()
	s.clients.Stop()
	s.nodes.Stop()
	err := s.http.close()
	s.watches.close()
	s.wg.Wait()
	s.pages.forget()
	if err != nil {
		return fmt.Errorf("close http: %w", err)
	}
	return nil
}
