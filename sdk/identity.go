package sdk

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// identity is the cluster that a client is of: what it was given, completed by the
// first answer. From then on every request names it, nodes of another cluster
// refuse such a request, and their answers and streams are errors here. Nothing
// is ever forgotten, so the addresses of a node, which others may have by now,
// never lead to another cluster. A node that names no cluster is of an earlier
// version and is taken.
//
// Example: given prod. A node of test is refused; the first answer of prod/3f0c
// makes the identity prod/3f0c; prod, formed anew as prod/77ab, is refused.
type identity struct {
	own atomic.Pointer[ownIdentity]
}

type ownIdentity struct {
	registrypb.ClusterRef
	encoded string
}

func (i *identity) give(cfg *config) error {
	ref, err := registrypb.ParseClusterRef(cfg.cluster)
	if err != nil {
		return invalid("dial", "cluster", "NAME, NAME/ID or /ID, at most 255 bytes each", err.Error())
	}
	i.own.Store(&ownIdentity{ref, ref.Encode()})
	return nil
}

// meet compares what a node says of its cluster, and with hold completes what is
// known by it. The error is what a node would have refused the call with.
func (i *identity) meet(node registrypb.ClusterRef, hold bool) error {
	for {
		own := i.own.Load()
		if own.Differs(node) {
			return wrongCluster(fmt.Sprintf("the node is of cluster %q, this client of %q; if that was formed anew, start the client again without its copies of rings", node, own))
		}
		next := own.Complete(node)
		if !hold || next == own.ClusterRef || i.own.CompareAndSwap(own, &ownIdentity{next, next.Encode()}) {
			return nil
		}
	}
}

// keep is meet for the copy of a ring on disk.
func (i *identity) keep(cluster string, hold bool) error {
	if i.meet(registrypb.ClusterRef{ID: cluster}, hold) != nil {
		return fmt.Errorf("%w: it is of cluster id %s, this client is of %q", ErrDiskCopy, cluster, i.own.Load())
	}
	return nil
}

func wrongCluster(message string) error {
	st, err := status.New(codes.FailedPrecondition, message).WithDetails(&registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_WRONG_CLUSTER})
	if err != nil {
		return status.Error(codes.Internal, message) // the detail has no text that could be refused
	}
	return st.Err()
}

// heard takes the header of an answer. The first one that is no error decides to
// which cluster the client belongs.
func (i *identity) heard(header metadata.MD, hold bool) error {
	own := i.own.Load()
	for _, v := range header.Get(registrypb.ClusterHeader) {
		if v == own.encoded && own.Name != "" && own.ID != "" {
			continue
		}
		node, err := registrypb.DecodeClusterRef(v)
		if err != nil {
			return wrongCluster(err.Error())
		}
		if err := i.meet(node, hold); err != nil {
			return err
		}
	}
	return nil
}

// outgoing names the cluster in a request.
func (i *identity) outgoing(ctx context.Context) context.Context {
	if named := i.own.Load().encoded; named != "" {
		return metadata.AppendToOutgoingContext(ctx, registrypb.ClusterHeader, named)
	}
	return ctx
}

// unary is a grpc.UnaryClientInterceptor.
func (i *identity) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var header metadata.MD
	err := invoke(i.outgoing(ctx), method, req, reply, cc, append(slices.Clip(opts), grpc.Header(&header))...)
	if refused := i.heard(header, err == nil); refused != nil {
		return refused
	}
	return err
}

// stream is a grpc.StreamClientInterceptor.
func (i *identity) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(i.outgoing(ctx), desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &identifiedStream{ClientStream: s, identity: i}, nil
}

// identifiedStream looks at the header before its first message is passed on.
type identifiedStream struct {
	grpc.ClientStream
	identity *identity
	heard    bool // of the receiving goroutine
}

func (s *identifiedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if s.heard {
		return err
	}
	s.heard = true
	header, headerErr := s.Header() // is there, or never comes, after RecvMsg
	if headerErr != nil {
		return err
	}
	if refused := s.identity.heard(header, err == nil); refused != nil {
		return refused
	}
	return err
}
