package sdk

import (
	"context"
	"crypto/rand"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// write makes a call that takes effect at most once: all its attempts, at
// whatever node, have one request id.
func write[Req registrypb.Write, Resp interface{ GetIndex() uint64 }](
	ctx context.Context, c *Client, op string, req Req,
	method func(registrypb.RegistryClient, context.Context, Req, ...grpc.CallOption) (Resp, error),
) (resp Resp, err error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	since, err := c.since(ctx, op)
	if err != nil {
		return resp, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails: documented
	cl := c.newCall(op, writeKind)
	err = cl.run(ctx, func(ctx context.Context, a *attempt) (err error) {
		req.SetAttempt(id, since, cl.unknown)
		resp, err = method(a.registry(), ctx, req, a.opts...)
		return err
	})
	c.observe(resp.GetIndex())
	return resp, err
}

// since returns an index that the cluster had applied before a write. A client
// that has seen none asks for one: without it, a later attempt could not be
// told from a call that a leader has forgotten.
func (c *Client) since(ctx context.Context, op string) (uint64, error) {
	if seen := c.seen.Load(); seen > 0 {
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
