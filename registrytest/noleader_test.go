package registrytest_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// A node that knows no leader says so before the caller's own deadline: after
// that the caller could only guess whether the write took effect.
func TestWriteWithoutLeaderIsToldInTime(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3))
	last := (c.Leader() + 1) % 3
	for i := range c.Nodes() {
		if i != last {
			c.Stop(i)
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+c.Nodes()[last].Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for leader := "?"; leader != ""; {
		st, err := registrypb.NewClusterClient(conn).Status(t.Context(), &registrypb.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		leader = st.Leader
	}
	for range 5 { // a stall of the machine at the end of the time makes a try useless
		ctx, cancel := context.WithTimeout(t.Context(), 2900*time.Millisecond) // less than a node waits for a leader
		_, err = registrypb.NewRegistryClient(conn).Deregister(ctx, &registrypb.DeregisterRequest{Group: "web", Id: "web-1"})
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			break
		}
	}
	wantReason(t, err, codes.Unavailable, registrypb.ErrorDetail_NO_LEADER)
}
