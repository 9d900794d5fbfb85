package rpc

import (
	"context"

	"google.golang.org/grpc"
)

// chain is what every call of a port passes on its way to its handler, over gRPC and
// over HTTP: metrics, the cluster's identity, the permissions.
type chain struct {
	unary  []grpc.UnaryServerInterceptor
	stream []grpc.StreamServerInterceptor
}

// options give a gRPC server the chain.
func (c chain) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(c.unary...),
		grpc.ChainStreamInterceptor(c.stream...),
		grpc.ForceServerCodecV2(newFrameCodec()),
	}
}

// call passes a call that did not come over gRPC: it is an interceptor.
func (c chain) call(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if len(c.unary) == 0 {
		return handler(ctx, req)
	}
	rest := chain{unary: c.unary[1:]}
	return c.unary[0](ctx, req, info, func(ctx context.Context, req any) (any, error) {
		return rest.call(ctx, req, info, handler)
	})
}

// follow passes a stream that did not come over gRPC: it is an interceptor.
func (c chain) follow(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if len(c.stream) == 0 {
		return handler(srv, stream)
	}
	rest := chain{stream: c.stream[1:]}
	return c.stream[0](srv, stream, info, func(srv any, stream grpc.ServerStream) error {
		return rest.follow(srv, stream, info, handler)
	})
}
