package sdk

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Bounds of gathering.
const (
	// gatherCalls are under way at a node before further registrations wait.
	gatherCalls = 8
	// gatherMost go together, in at most gatherBytes: the server's limits, with room for
	// the envelope.
	gatherMost  = 1000
	gatherBytes = maxRequest / 2
)

// gatherer sends a client's registrations to one node. While fewer than gatherCalls
// calls are under way, each goes at once in a call of its own. Those that come meanwhile
// wait for the end of a call and then go together in one.
type gatherer struct {
	mu      sync.Mutex // guards the rest
	calls   int        // under way
	waiting []*gathered
}

// gathered is a registration that waited.
type gathered struct {
	ctx  context.Context
	conn *grpc.ClientConn
	req  *registrypb.RegisterRequest // a copy: its caller may go before it is sent
	size int
	sent bool          // guarded by gatherer.mu
	done chan struct{} // closed when the next fields are set
	resp *registrypb.RegisterResponse
	err  error
}

// register makes one attempt to register.
func (g *gatherer) register(ctx context.Context, c *Client, a *attempt, req *registrypb.RegisterRequest) (*registrypb.RegisterResponse, error) {
	g.mu.Lock()
	if g.calls < gatherCalls {
		g.calls++
		g.mu.Unlock()
		defer g.ended(c)
		return a.registry().Register(ctx, req, a.opts...)
	}
	w := &gathered{ctx: ctx, conn: a.conn, req: proto.CloneOf(req), size: proto.Size(req), done: make(chan struct{})}
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a.sent = a.sent || w.sent
	select {
	case <-w.done:
		return w.resp, w.err
	default:
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(other *gathered) bool { return other == w })
	return nil, status.FromContextError(ctx.Err()).Err()
}

// ended uses a call's place for those that wait, if any do.
func (g *gatherer) ended(c *Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, size := 0, 0
	for n < len(g.waiting) && n < gatherMost && (n == 0 || size+g.waiting[n].size <= gatherBytes) {
		size += g.waiting[n].size
		n++
	}
	batch := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	if n == 0 {
		g.calls--
		return
	}
	for _, w := range batch {
		w.sent = true
	}
	err := c.start(func() {
		defer g.ended(c)
		g.send(c, batch)
	})
	if err != nil { // and the same for all: no later call may wake the rest
		g.calls--
		batch, g.waiting = append(batch, g.waiting...), nil
		for _, w := range batch {
			w.sent, w.err = false, err
			close(w.done)
		}
	}
}

// send sends registrations in one call. One that this call cannot do goes alone.
func (g *gatherer) send(c *Client, batch []*gathered) {
	alone := batch
	if len(batch) > 1 {
		alone = g.together(c, batch)
	}
	var all sync.WaitGroup
	for _, w := range alone {
		all.Go(func() {
			var to peer.Peer // set once a stream to the node exists
			resp, err := registrypb.NewRegistryClient(w.conn).Register(w.ctx, w.req, grpc.Peer(&to))
			g.mu.Lock()
			defer g.mu.Unlock()
			w.sent, w.resp, w.err = to.Addr != nil, resp, err
			close(w.done)
		})
	}
	all.Wait()
}

// together returns those that have to go alone: all of them if the node does not know
// the call, or if the token does not allow one of them.
func (g *gatherer) together(c *Client, batch []*gathered) (alone []*gathered) {
	ctx, cancel := context.WithDeadline(c.ctx, latest(batch))
	defer cancel()
	req := &registrypb.RegisterManyRequest{}
	for _, w := range batch {
		req.Registrations = append(req.Registrations, w.req)
	}
	var to peer.Peer                 // set once a stream to the node exists
	conn := batch[len(batch)-1].conn // the newest: see endpoint.redial
	resp, err := registrypb.NewRegistryClient(conn).RegisterMany(ctx, req, grpc.Peer(&to))
	switch code := status.Code(err); {
	case code == codes.Unimplemented || code == codes.PermissionDenied:
		return batch
	case err == nil && len(resp.Results) != len(batch):
		err = status.Errorf(codes.Internal, "%d answers to %d registrations", len(resp.Results), len(batch))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, w := range batch {
		w.sent = to.Addr != nil
		switch {
		case err != nil:
			w.err = err
		case resp.Results[i].GetRegistered() != nil:
			w.resp = resp.Results[i].GetRegistered()
		case resp.Results[i].GetFailure().GetDetail().GetReason() == registrypb.ErrorDetail_NOT_OWNER:
			alone = append(alone, w)
			continue
		default:
			w.err = failureError(resp.Results[i].GetFailure())
		}
		close(w.done)
	}
	return alone
}

// latest is when the last of the attempts ends.
func latest(batch []*gathered) (at time.Time) {
	for _, w := range batch {
		if deadline, ok := w.ctx.Deadline(); ok && deadline.After(at) {
			at = deadline
		}
	}
	return at
}

// failureError is the error that Register would have returned.
func failureError(f *registrypb.Failure) error {
	if codes.Code(f.GetCode()) == codes.OK {
		return status.Error(codes.Internal, "the node's answer to a registration is neither of its kinds")
	}
	st := status.New(codes.Code(f.GetCode()), f.GetMessage())
	if detailed, err := st.WithDetails(f.GetDetail()); err == nil {
		st = detailed
	}
	return st.Err()
}
