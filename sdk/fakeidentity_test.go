package sdk

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// identify names the cluster and refuses calls for another, as a node does.
func (n *fakeNode) identify(ctx context.Context, set func(metadata.MD) error) error {
	n.cl.mu.Lock()
	own, unnamed, trusting := registrypb.ClusterRef{Name: "fake", ID: n.cl.id}, n.unnamed, n.trusting
	if n.foreign != "" {
		own, _ = registrypb.ParseClusterRef(n.foreign)
	}
	n.cl.mu.Unlock()
	if unnamed {
		return nil
	}
	if err := set(metadata.Pairs(registrypb.ClusterHeader, own.Encode())); err != nil {
		return err
	}
	if trusting {
		return nil
	}
	for _, v := range metadata.ValueFromIncomingContext(ctx, registrypb.ClusterHeader) {
		if ref, err := registrypb.DecodeClusterRef(v); err != nil || own.Differs(ref) {
			n.mu.Lock()
			n.calls["refused"]++
			n.mu.Unlock()
			return failing(codes.FailedPrecondition, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_WRONG_CLUSTER})
		}
	}
	return nil
}

func (n *fakeNode) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := n.identify(ctx, func(md metadata.MD) error { return grpc.SetHeader(ctx, md) }); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (n *fakeNode) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := n.identify(s.Context(), s.SetHeader); err != nil {
		return err
	}
	return handler(srv, s)
}

// become makes nodes of another cluster, NAME/ID, answer from now on; an empty
// name, those of their own again.
func (cl *fakeCluster) become(cluster string, nodes ...*fakeNode) {
	cl.mu.Lock()
	for _, n := range nodes {
		n.foreign = cluster
	}
	cl.mu.Unlock()
	for _, n := range nodes {
		n.breakStreams()
	}
}

// of is the cluster, NAME/ID, that the node is of instead of its own. Streams that
// were open when it changed end.
func (n *fakeNode) of() string {
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	return n.foreign
}
