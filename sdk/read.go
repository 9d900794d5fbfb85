package sdk

import (
	"context"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Bounds of one MatchMany request: the server's, with room for the envelope.
const (
	batchKeys  = 1000
	batchBytes = maxRequest - 8<<10
)

// Match returns the member of the group that owns the key. The key may be any
// bytes, up to 4 KiB. A group without members that own keys is ErrEmptyGroup.
// An owner that is StateHeld has a Fallback, which serves the key: Member.Serving.
func (c *Client) Match(ctx context.Context, group, key string, opts ...ReadOption) (Member, error) {
	ms, err := c.MatchN(ctx, group, key, 1, opts...)
	if err != nil {
		return Member{}, err
	}
	return ms[0], nil
}

// MatchN returns the first n distinct owners of the key, the owner first; fewer
// when fewer members own keys, never none. Owners that take more than 4 MiB with
// their metadata are ErrInvalidArgument with the field n.
func (c *Client) MatchN(ctx context.Context, group, key string, n int, opts ...ReadOption) ([]Member, error) {
	count, err := owners("match", n)
	if err != nil {
		return nil, err
	}
	req := &registrypb.MatchRequest{Group: group, Key: []byte(key), N: count}
	var resp *registrypb.MatchResponse
	err = c.readCall(ctx, "match", req, readOptionsOf(opts), func(ctx context.Context, a *attempt) (r *registrypb.Receipt, err error) {
		req.Read = a.read
		resp, err = a.registry().Match(ctx, req, a.opts...)
		return resp.GetReceipt(), err
	})
	if err != nil {
		return nil, err
	}
	if len(resp.GetMembers()) == 0 {
		return nil, &Error{Op: "match", Reason: reasonEmptyGroup, Message: fmt.Sprintf("group %q: no owner in the answer", group)}
	}
	ms := membersFromProto(resp.GetMembers())
	if f := resp.GetFallback(); f != nil {
		m := memberFromProto(f)
		ms[0].Fallback = &m
	}
	return ms, nil
}

// MatchMany returns the owner of each key, in the order of the keys. If the keys
// exceed the limit of a request or its answer, several are sent, one after the
// other: each is answered from one ring, never older than the one before, and the
// receipt is that of the first.
func (c *Client) MatchMany(ctx context.Context, group string, keys []string, opts ...ReadOption) ([]Member, error) {
	all, err := c.MatchManyN(ctx, group, keys, 1, opts...)
	if err != nil {
		return nil, err
	}
	out := make([]Member, len(all))
	for i, ms := range all {
		out[i] = ms[0]
	}
	return out, nil
}

// MatchManyN is MatchMany with the first n distinct owners of each key.
func (c *Client) MatchManyN(ctx context.Context, group string, keys []string, n int, opts ...ReadOption) ([][]Member, error) {
	count, err := owners("match", n)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, c.open()
	}
	o := readOptionsOf(opts)
	out := make([][]Member, 0, len(keys))
	most := batchKeys
	for len(keys) > 0 {
		size := batchSize(keys[:min(len(keys), most)])
		owned, err := c.matchBatch(ctx, group, keys[:size], count, o)
		if e := (*Error)(nil); errors.As(err, &e) && e.Field == "keys" && size > 1 {
			most = size / 2 // the owners with their metadata exceed the limit of an answer
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, owned...)
		keys = keys[size:]
		o.receipt = nil // keep that of the first batch
	}
	return out, nil
}

// batchSize is how many of the keys fit into one request; at least one.
func batchSize(keys []string) int {
	bytes := 0
	for i, k := range keys[:min(len(keys), batchKeys)] {
		bytes += len(k) + 4 // tag and length
		if bytes > batchBytes && i > 0 {
			return i
		}
	}
	return min(len(keys), batchKeys)
}

func (c *Client) matchBatch(ctx context.Context, group string, keys []string, n uint32, o readOptions) ([][]Member, error) {
	req := &registrypb.MatchManyRequest{Group: group, N: n, Keys: make([][]byte, len(keys))}
	for i, k := range keys {
		req.Keys[i] = []byte(k)
	}
	var resp *registrypb.MatchManyResponse
	err := c.readCall(ctx, "match", req, o, func(ctx context.Context, a *attempt) (r *registrypb.Receipt, err error) {
		req.Read = a.read
		resp, err = a.registry().MatchMany(ctx, req, a.opts...)
		return resp.GetReceipt(), err
	})
	if err != nil {
		return nil, err
	}
	return spread(resp, len(keys))
}

// spread gives each key its owners. It trusts no number from the wire.
func spread(resp *registrypb.MatchManyResponse, keys int) ([][]Member, error) {
	per := int(resp.GetOwnersPerKey())
	if per < 1 || len(resp.GetOwners()) != keys*per {
		return nil, &Error{Op: "match", Message: fmt.Sprintf("malformed answer: %d owners for %d keys", len(resp.GetOwners()), keys)}
	}
	members := membersFromProto(resp.GetMembers())
	flat := make([]Member, len(resp.GetOwners()))
	for i, m := range resp.GetOwners() {
		if int(m) >= len(members) {
			return nil, &Error{Op: "match", Message: fmt.Sprintf("malformed answer: owner %d of %d", m, len(members))}
		}
		flat[i] = members[m]
	}
	fallbacks := resp.GetFallbacks()
	if len(fallbacks) > 0 && len(fallbacks) != keys {
		return nil, &Error{Op: "match", Message: fmt.Sprintf("malformed answer: %d fallbacks for %d keys", len(fallbacks), keys)}
	}
	for i, m := range fallbacks {
		switch {
		case int(m) > len(members):
			return nil, &Error{Op: "match", Message: fmt.Sprintf("malformed answer: fallback %d of %d", m, len(members))}
		case m > 0:
			flat[i*per].Fallback = &members[m-1]
		}
	}
	out := make([][]Member, keys)
	for i := range out {
		out[i] = flat[i*per : (i+1)*per : (i+1)*per]
	}
	return out, nil
}

type readFunc func(ctx context.Context, a *attempt) (*registrypb.Receipt, error)

// readCall runs a read of replicated state and keeps its receipt.
func (c *Client) readCall(ctx context.Context, op string, req proto.Message, o readOptions, f readFunc) error {
	if err := c.ready(op, req); err != nil {
		return err
	}
	cl := c.newCall(op, readKind)
	cl.read, cl.seen = &o, c.seen.Load()
	var receipt *registrypb.Receipt
	err := cl.run(ctx, func(ctx context.Context, a *attempt) (err error) {
		if receipt, err = f(ctx, a); err == nil {
			err = c.identity.check(registrypb.ClusterRef{ID: receipt.GetClusterId()}, true)
		}
		return err
	})
	if err != nil {
		return err
	}
	if o.receipt != nil {
		*o.receipt = receiptFromProto(receipt)
	}
	if cl.fallback() && receipt.GetIndex() < cl.seen {
		// The log with the remembered index was lost.
		c.seen.CompareAndSwap(cl.seen, receipt.GetIndex())
		c.cfg.logger.Warn("the cluster's log is shorter than before: it was restored or lost",
			"seen", cl.seen, "index", receipt.GetIndex())
		return nil
	}
	c.observe(receipt.GetIndex())
	return nil
}

// ready refuses calls after Close, and requests that the transport would refuse
// without naming the limit.
func (c *Client) ready(op string, req proto.Message) error {
	if err := c.open(); err != nil {
		return err
	}
	if r, ok := req.(interface{ GetGroup() string }); ok {
		if err := checkText(op, "group", r.GetGroup()); err != nil {
			return err
		}
	}
	if r, ok := req.(interface{ GetId() string }); ok {
		if err := checkText(op, "id", r.GetId()); err != nil {
			return err
		}
	}
	if n := proto.Size(req); n > maxRequest {
		return invalid(op, "request", "1 MiB", fmt.Sprintf("request of %d bytes is over the limit of 1 MiB", n))
	}
	return nil
}

func owners(op string, n int) (uint32, error) {
	if n < 1 || n > math.MaxInt32 {
		return 0, invalid(op, "n", "≥ 1", fmt.Sprintf("n = %d is not positive", n))
	}
	return uint32(n), nil
}
