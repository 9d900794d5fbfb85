package sdk

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// write makes a call that takes effect at most once: all its attempts, on any node,
// have the same request id.
func write[Req registrypb.Write, Resp interface{ GetIndex() uint64 }](
	ctx context.Context, c *Client, op string, req Req,
	method func(context.Context, *attempt, Req) (Resp, error),
) (resp Resp, err error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	for maxAge := sinceAge; ; maxAge = 0 {
		since, err := c.since(ctx, op, maxAge)
		if err != nil {
			return resp, err
		}
		id := make([]byte, 16)
		_, _ = rand.Read(id) // never fails: documented
		cl := c.newCall(op, writeKind)
		err = cl.run(ctx, func(ctx context.Context, a *attempt) (err error) {
			req.SetAttempt(id, since, cl.unknown)
			resp, err = method(ctx, a, req)
			return err
		})
		c.observe(resp.GetIndex())
		var e *Error
		if maxAge > 0 && !cl.unknown && errors.As(err, &e) && e.Field == "since" && e.Reason == reasonInvalidArgument {
			continue // the leader's deduplication begins later; nothing was done
		}
		return resp, err
	}
}

// plain makes an attempt a call of the API.
func plain[Req, Resp any](method func(registrypb.RegistryClient, context.Context, Req, ...grpc.CallOption) (Resp, error)) func(context.Context, *attempt, Req) (Resp, error) {
	return func(ctx context.Context, a *attempt, req Req) (Resp, error) {
		return method(a.registry(), ctx, req, a.opts...)
	}
}

// sinceAge is how old the index may be that a write names as observed before it.
// Added to the duration of a call it must be within the leader's deduplication.
const sinceAge = 5 * time.Second

// since returns an index that the client observed at most maxAge ago, and asks for
// one if there is none: a leader needs it to tell a repeated attempt from a request
// that its deduplication no longer has.
func (c *Client) since(ctx context.Context, op string, maxAge time.Duration) (uint64, error) {
	if seen := c.seen.Load(); seen > 0 && time.Since(c.began)-time.Duration(c.seenAt.Load()) < maxAge {
		return seen, nil
	}
	var resp *registrypb.IndexResponse
	err := c.do(ctx, op, readKind, func(ctx context.Context, a *attempt) (err error) {
		resp, err = a.registry().Index(ctx, &registrypb.IndexRequest{}, a.opts...)
		return err
	})
	c.observe(resp.GetIndex())
	return resp.GetIndex(), err
}
