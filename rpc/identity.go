package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// errWrongCluster: the call is for another cluster.
var errWrongCluster = errors.New("wrong cluster")

// identity sets the cluster in the header of every answer, and refuses calls for
// another cluster before they reach a handler. Before a node joins a cluster, it has
// a name and no id, and refuses calls that name an id.
type identity struct {
	store *store.Store
	own   atomic.Pointer[ownIdentity] // of the last call
}

type ownIdentity struct {
	registrypb.ClusterRef
	encoded string
	header  metadata.MD // shared by all answers: gRPC copies it
}

func (i *identity) current() *ownIdentity {
	id := i.store.ClusterID()
	if own := i.own.Load(); own != nil && own.ID == id {
		return own
	}
	own := &ownIdentity{ClusterRef: registrypb.ClusterRef{Name: i.store.Self().Cluster, ID: id}}
	own.encoded = own.Encode()
	own.header = metadata.Pairs(registrypb.ClusterHeader, own.encoded)
	i.own.Store(own)
	return own
}

// check refuses a call for another cluster.
func (o *ownIdentity) check(ctx context.Context) error {
	for _, v := range metadata.ValueFromIncomingContext(ctx, registrypb.ClusterHeader) {
		if v == o.encoded {
			continue
		}
		want, err := registrypb.DecodeClusterRef(v)
		if err != nil {
			return &fsm.FieldError{Field: registrypb.ClusterHeader, Limit: "NAME, NAME/ID or /ID, percent-encoded, at most 255 bytes each", Got: fmt.Sprintf("%.600q", v)}
		}
		if o.Differs(want) {
			return fmt.Errorf("%w: this node is of cluster %q, the call is for %q", errWrongCluster, o, want)
		}
		if o.ID == "" && want.ID != "" { // it may form another one while a stream is open
			return fmt.Errorf("%w: it is in no cluster, the call is for %q", store.ErrNotReady, want)
		}
	}
	return nil
}

func (i *identity) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	own := i.current()
	if err := grpc.SetHeader(ctx, own.header); err != nil {
		return nil, err
	}
	if err := own.check(ctx); err != nil {
		return nil, toStatus(err)
	}
	return handler(ctx, req)
}

func (i *identity) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	own := i.current()
	if err := stream.SetHeader(own.header); err != nil {
		return err
	}
	if err := own.check(stream.Context()); err != nil {
		return toStatus(err)
	}
	return handler(srv, stream)
}
