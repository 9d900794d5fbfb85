package rpc

import (
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// A check is right at once, before followReadiness has heard of a change, and a server that
// drains does not serve again.
func TestHealthIsAsked(t *testing.T) {
	c := storetest.New(t)
	n := c.Open("n1")
	h := newHealthService(n.Store) // without a server, whose followReadiness would update it
	h.update()                     // as New does
	check := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		one, err := h.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || one.GetStatus() != want {
			t.Errorf("the check says %v, %v, want %v", one.GetStatus(), err, want)
		}
		all, err := h.List(t.Context(), &grpc_health_v1.HealthListRequest{})
		if got := all.GetStatuses()[""].GetStatus(); err != nil || got != want {
			t.Errorf("the list says %v, %v, want %v", got, err, want)
		}
	}
	check(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	n.Form(store.Formation{})
	c.AwaitReady(n)
	check(grpc_health_v1.HealthCheckResponse_SERVING)
	h.Shutdown()
	check(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
}
