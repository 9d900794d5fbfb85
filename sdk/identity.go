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

// identity is the client's cluster: the given name or id, completed by the first
// answer and kept from then on, so that reused addresses never lead to another
// cluster. Every request names it, nodes of another cluster refuse the request, and
// their answers and streams are errors here. A node that names no cluster is of an
// earlier version and is accepted.
//
// Example: prod is given. A node of test is refused; the first answer of prod/3f0c
// makes the identity prod/3f0c; a new cluster prod/77ab is refused.
type identity struct {
	own atomic.Pointer[ownIdentity]
}

type ownIdentity struct {
	registrypb.ClusterRef
	encoded string
}

func (i *identity) configure(cfg *config) error {
	ref, err := registrypb.ParseClusterRef(cfg.cluster)
	if err != nil {
		return invalid("dial", "cluster", "NAME, NAME/ID or /ID, at most 255 bytes each", err.Error())
	}
	i.own.Store(&ownIdentity{ref, ref.Encode()})
	return nil
}

// check compares the cluster that a node names, and with adopt completes the
// identity by it. The error is the one that a node refuses a call with.
func (i *identity) check(node registrypb.ClusterRef, adopt bool) error {
	for {
		own := i.own.Load()
		if own.Differs(node) {
			message := fmt.Sprintf("the node is of cluster %q, this client of %q", node, own)
			if own.ID != "" {
				message += "; if the cluster was formed anew, restart this client, without its copies of rings"
			}
			return wrongCluster(message)
		}
		next := own.Complete(node)
		if !adopt || next == own.ClusterRef || i.own.CompareAndSwap(own, &ownIdentity{next, next.Encode()}) {
			return nil
		}
	}
}

// checkCopy is check for the copy of a ring on disk.
func (i *identity) checkCopy(cluster string, adopt bool) error {
	if i.check(registrypb.ClusterRef{ID: cluster}, adopt) != nil {
		return fmt.Errorf("%w: it is of cluster id %s, this client is of %q", ErrDiskCopy, cluster, i.own.Load())
	}
	return nil
}

func wrongCluster(message string) error {
	st, err := status.New(codes.FailedPrecondition, message).WithDetails(&registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_WRONG_CLUSTER})
	if err != nil {
		return status.Error(codes.Internal, message) // cannot happen: the detail has no text
	}
	return st.Err()
}

// checkHeader checks the header of an answer. The first answer without an error
// completes the identity.
func (i *identity) checkHeader(header metadata.MD, adopt bool) error {
	own := i.own.Load()
	for _, v := range header.Get(registrypb.ClusterHeader) {
		if v == own.encoded && own.Name != "" && own.ID != "" {
			continue
		}
		node, err := registrypb.DecodeClusterRef(v)
		if err != nil {
			return wrongCluster(err.Error())
		}
		if err := i.check(node, adopt); err != nil {
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
	if refused := i.checkHeader(header, err == nil); refused != nil {
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

// identifiedStream checks the header before it returns the first message.
type identifiedStream struct {
	grpc.ClientStream
	identity *identity
	checked  bool // of the receiving goroutine
}

func (s *identifiedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if s.checked {
		return err
	}
	s.checked = true
	header, headerErr := s.Header() // does not block after RecvMsg
	if headerErr != nil {
		return err
	}
	if refused := s.identity.checkHeader(header, err == nil); refused != nil {
		return refused
	}
	return err
}
