package registrytest_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// A node that is asked to leave, the leader, is removed and ends; the others go on. One
// that is asked by another's id stays.
func TestNodeLeaves(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	st, err := registrypb.NewClusterClient(c.conns[0]).Status(ctx, &registrypb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	goes := 0
	for i, n := range c.nodes {
		if n.ID() == st.Leader {
			goes = i
		}
	}
	node, stays := c.nodes[goes], (goes+1)%3
	_, err = registrypb.NewClusterClient(c.conns[stays]).Leave(ctx, &registrypb.LeaveRequest{Id: node.ID()})
	wantReason(t, err, codes.FailedPrecondition, registrypb.ErrorDetail_MEMBERSHIP)
	leave := func() error {
		_, err := registrypb.NewClusterClient(c.conns[goes]).Leave(ctx, &registrypb.LeaveRequest{Id: node.ID()})
		return err
	}
	for err = leave(); err != nil && node.Err() == nil && ctx.Err() == nil; err = leave() {
		t.Logf("again, after: %v", err) // a machine that stalls may have no leader for a while
	}
	select {
	case <-node.Done():
	case <-ctx.Done():
		t.Fatal("it goes on")
	}
	if err := node.Err(); !errors.Is(err, registry.ErrLeft) {
		t.Errorf("it ended with %v, want ErrLeft", err)
	}
	if err := node.Close(); err != nil {
		t.Error(err)
	}
	if st, err = registrypb.NewClusterClient(c.conns[stays]).Status(ctx, &registrypb.StatusRequest{}); err != nil || len(st.Nodes) != 2 {
		t.Errorf("%v, %v", st, err)
	}
	c.register(t, stays, nil)
}
