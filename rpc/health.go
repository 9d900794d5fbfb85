package rpc

import (
	"context"
	"sync"

	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// healthService is gRPC's health service. It asks the store at each check: whoever waited
// for the store's Ready, or for systemd to say that the node has started, must not be told
// that it does not serve because followReadiness runs a moment later.
type healthService struct {
	*health.Server
	store *store.Store

	mu   sync.Mutex // orders updates, so that the last one has the newest answer
	said grpc_health_v1.HealthCheckResponse_ServingStatus
}

func newHealthService(st *store.Store) *healthService {
	return &healthService{Server: health.NewServer(), store: st}
}

// update says whether the node serves now. After Shutdown it says nothing.
func (h *healthService) update() {
	h.mu.Lock()
	defer h.mu.Unlock()
	to := grpc_health_v1.HealthCheckResponse_SERVING
	if h.store.Serving() != nil {
		to = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	if to == h.said {
		return // an update wakes every watcher
	}
	h.said = to
	for _, service := range []string{"", registrypb.Registry_ServiceDesc.ServiceName, registrypb.Cluster_ServiceDesc.ServiceName} {
		h.SetServingStatus(service, to)
	}
}

func (h *healthService) Check(ctx context.Context, in *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.update()
	return h.Server.Check(ctx, in)
}

func (h *healthService) List(ctx context.Context, in *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	h.update()
	return h.Server.List(ctx, in)
}
