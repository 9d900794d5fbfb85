package registrytest_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// lossy stands in front of a node. The first Deregister that comes to any of
// those that share the counter takes effect, and its answer is lost.
type lossy struct {
	registrypb.UnimplementedRegistryServer
	registrypb.UnimplementedClusterServer
	node  registrypb.RegistryClient
	calls *atomic.Int32
	then  func() // runs before the answer is lost
}

func (l *lossy) Index(ctx context.Context, req *registrypb.IndexRequest) (*registrypb.IndexResponse, error) {
	return l.node.Index(ctx, req)
}

func (l *lossy) Deregister(ctx context.Context, req *registrypb.DeregisterRequest) (*registrypb.DeregisterResponse, error) {
	resp, err := l.node.Deregister(ctx, req)
	if l.calls.Add(1) > 1 || err != nil {
		return resp, err
	}
	l.then()
	return nil, status.Error(codes.Unavailable, "the connection broke")
}

// A client that repeats a call at another node does not undo what another
// process did in between.
func TestRepeatAtAnotherNodeTakesEffectOnce(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	c.register(t, 0, nil)
	var calls atomic.Int32
	target := ""
	for _, node := range c.apis[:2] {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		front, srv := &lossy{node: node, calls: &calls}, grpc.NewServer()
		front.then = func() {
			c.register(t, 2, func(r *registrypb.RegisterRequest) { r.Addr = "10.0.0.2:80" })
		}
		registrypb.RegisterRegistryServer(srv, front)
		registrypb.RegisterClusterServer(srv, front)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(lis) }()
		t.Cleanup(func() { srv.Stop(); <-served })
		target += "," + lis.Addr().String()
	}
	client, err := sdk.Dial(target[1:])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	removed, err := client.Deregister(t.Context(), "web", "web-1")
	if err != nil || !removed || calls.Load() != 2 {
		t.Errorf("removed %v, %v after %d calls; want the first attempt's result from the second", removed, err, calls.Load())
	}
	members, err := c.apis[0].Members(t.Context(), &registrypb.MembersRequest{Group: "web", Read: &registrypb.ReadOptions{Linearizable: true}})
	if err != nil || len(members.Members) != 1 || members.Members[0].Addr != "10.0.0.2:80" {
		t.Errorf("the member that registered between two attempts is gone: %v, %v", members, err)
	}
}

// A request id names one call: each node answers a repetition alike and
// refuses other values.
func TestRequestIDNamesOneCall(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	first := &registrypb.RegisterRequest{Group: "web", Id: "web-1", Addr: "10.0.0.1:80"}
	index, err := c.apis[0].Index(t.Context(), &registrypb.IndexRequest{})
	if err != nil || index.Index == 0 {
		t.Fatalf("%v, %v", index, err)
	}
	first.SetAttempt([]byte("0123456789abcdef"), index.Index, false)
	want, err := c.apis[0].Register(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if string(want.Instance) != "0123456789abcdef" {
		t.Errorf("a request without an instance got %q, want its request id", want.Instance)
	}
	for i, api := range c.apis {
		again := proto.Clone(first).(*registrypb.RegisterRequest)
		again.Again = true
		if got, err := api.Register(t.Context(), again); err != nil || !proto.Equal(got, want) {
			t.Errorf("node %d answers the repetition with %v, %v, want %v", i, got, err, want)
		}
		again.Weight = 1 // the default, but not what was sent
		_, err := api.Register(t.Context(), again)
		wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
		other := &registrypb.DeregisterRequest{Group: "web", Id: "web-1"}
		other.SetAttempt(first.RequestId, first.Since, true)
		_, err = api.Deregister(t.Context(), other)
		wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
		short := &registrypb.SetGroupRequest{Group: "web", RequestId: []byte("short")}
		_, err = api.SetGroup(t.Context(), short)
		wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
	}
}

// An index above all that the leader has applied was observed in a cluster that
// this one replaced.
func TestRepeatFromAnotherHistoryIsUnknown(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	req := &registrypb.UpdateMemberRequest{Group: "web", Id: "web-1", Weight: proto.Uint32(2)}
	req.SetAttempt([]byte("0123456789abcdef"), 1<<40, true)
	_, err := c.apis[1].UpdateMember(t.Context(), req)
	wantReason(t, err, codes.Unknown, registrypb.ErrorDetail_OUTCOME_UNKNOWN)
}

// Leadership is handed over through any node, which answers who leads.
func TestTransferThroughAFollower(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	for i, n := range c.nodes {
		st, err := registrypb.NewClusterClient(c.conns[i]).Status(t.Context(), &registrypb.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if st.Leader == n.ID() {
			continue
		}
		resp, err := registrypb.NewClusterClient(c.conns[i]).Transfer(t.Context(), &registrypb.TransferRequest{})
		if err != nil || resp.Leader == "" || resp.Leader == st.Leader {
			t.Errorf("through %s: %v, %v, the leader was %s", n.ID(), resp, err, st.Leader)
		}
		c.settle(t)
	}
}
