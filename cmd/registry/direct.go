package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// dialDirect makes a connection for calls that do not go through the SDK: to one
// node, each attempted once. What they fail with is a callError.
func dialDirect(addr string, r *reach) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(r.credentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(r.dial),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return r.callError(addr, invoke(ctx, method, req, reply, conn, opts...))
		}))
}

// callError is what became of a direct call. The sentinels of the SDK match it as
// they match the SDK's own errors.
type callError struct {
	addr string
	as   *sdk.Error
}

func (e callError) Error() string { return e.addr + ": " + e.as.Message }

func (e callError) Is(target error) bool {
	return e.as.Is(target) || target == context.Canceled && e.as.Code == codes.Canceled
}

func (r *reach) callError(addr string, err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	e := &sdk.Error{Code: st.Code(), Message: st.Message()}
	for _, d := range st.Details() {
		if d, ok := d.(*registrypb.ErrorDetail); ok {
			e.Reason, e.Field, e.Limit = sdk.Reason(d.GetReason()), d.GetField(), d.GetLimit()
		}
	}
	if e.Reason == 0 { // of the connection, and gRPC's text is long
		switch reason := r.reason(addr); {
		case e.Code == codes.Unavailable && reason != "":
			e.Message = reason
		case e.Code == codes.DeadlineExceeded:
			e.Message = "no answer in time"
		}
	}
	return callError{addr, e}
}
