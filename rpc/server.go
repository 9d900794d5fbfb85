package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// maxHeaders bounds the headers of a call, in bytes.
const maxHeaders = 32 << 10

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
}

// Server serves both ports.
type Server struct {
	registrypb.UnimplementedRegistryServer
	registrypb.UnimplementedClusterServer

	store *store.Store
	peers *Peers
	log   *slog.Logger

	metrics *metrics.Node
	limits  Limits
	pages   pages

	clients *grpc.Server
	nodes   *grpc.Server
	http    *httpServer
	health  *health.Server

	term      atomic.Pointer[leaderTerm]
	nodesRing atomic.Pointer[nodesRing]

	serving atomic.Pointer[context.Context] // ends when the node stops serving

	ctx    context.Context // ends with Close: streams end with it
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New returns a server without listeners.
func New(cfg Config) *Server {
	s := &Server{store: cfg.Store, peers: cfg.Peers, log: cfg.Logger, health: health.NewServer(), metrics: cfg.Metrics, limits: cfg.Limits.withDefaults()}
	if s.metrics == nil {
		s.metrics = metrics.New()
	}
	calls := s.metrics.Calls
	clientCalls, nodeCalls := calls.Interceptors(), calls.Interceptors()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	cluster := &identity{store: s.store}
	s.clients = grpc.NewServer(serverOptions(clientCalls, cluster)...)
	registrypb.RegisterRegistryServer(s.clients, s)
	registrypb.RegisterClusterServer(s.clients, s)
	grpc_health_v1.RegisterHealthServer(s.clients, s.health)
	reflection.Register(s.clients)
	s.nodes = grpc.NewServer(serverOptions(nodeCalls, cluster)...)
	registrypb.RegisterRegistryServer(s.nodes, s)
	registrypb.RegisterClusterServer(s.nodes, s)
	peerpb.RegisterPeerServer(s.nodes, &peerServer{server: s})
	calls.AddMethods(clientCalls, metrics.ClientPort, s.clients)
	calls.AddMethods(nodeCalls, metrics.NodePort, s.nodes)
	s.http = newHTTPServer(s, cfg.Gatherer)
	s.setHealth(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	s.term.Store(&leaderTerm{ctx: s.ctx})
	s.serving.Store(&s.ctx)
	s.wg.Go(s.followReadiness)
	s.wg.Go(s.followLeader)
	return s
}

func serverOptions(calls *metrics.Interceptors, cluster *identity) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(calls.Unary, cluster.unary),
		grpc.ChainStreamInterceptor(calls.Stream, cluster.stream),
		grpc.MaxRecvMsgSize(MaxRequest),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ForceServerCodecV2(newFrameCodec()),
		grpc.MaxConcurrentStreams(10_000),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
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

// followReadiness updates the health service, and ends the watches when the node stops
// serving because its state is wrong.
func (s *Server) followReadiness() {
	end := func(error) {}
	defer func() { end(nil) }()
	served := false
	for {
		changed := s.store.ServingChanged()
		err := s.store.Serving()
		if serves := err == nil; serves != served {
			served = serves
			if serves {
				ctx, cancel := context.WithCancelCause(s.ctx)
				s.serving.Store(&ctx)
				end = cancel
				s.setHealth(grpc_health_v1.HealthCheckResponse_SERVING)
			} else {
				s.setHealth(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
				end(err)
				s.pages.forget()
			}
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) setHealth(to grpc_health_v1.HealthCheckResponse_ServingStatus) {
	for _, service := range []string{"", registrypb.Registry_ServiceDesc.ServiceName, registrypb.Cluster_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, to)
	}
}

// Drain sets health to not serving and waits, for at most d, until the clients' calls
// in progress are answered.
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
	s.health.Shutdown()
	s.clients.Stop()
	s.nodes.Stop()
	err := s.http.close()
	s.wg.Wait()
	s.pages.forget()
	if err != nil {
		return fmt.Errorf("close http: %w", err)
	}
	return nil
}
