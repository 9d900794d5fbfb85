package sdk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// kind is how a call may be repeated.
type kind struct {
	timeouts int  // attempt timeouts that one attempt may last; 0: as long as the call
	write    bool // an attempt that was sent and not answered has an unknown outcome
	once     bool // not repeated after an unknown outcome: not idempotent by its fields
	long     bool // lasts as long as its data moves: the client's call timeout does not bound it
}

var (
	readKind   = kind{timeouts: 1}
	statusKind = kind{timeouts: 5} // the node asks all others first
	writeKind  = kind{timeouts: 3, write: true}
	onceKind   = kind{write: true, once: true}

	saveKind    = kind{long: true}
	restoreKind = kind{write: true, once: true, long: true}
)

// attempt is one request to one node.
type attempt struct {
	ep   *endpoint
	conn *grpc.ClientConn
	opts []grpc.CallOption
	read *registrypb.ReadOptions // for reads
	sent bool                    // by another call: see gatherer
}

func (a *attempt) registry() registrypb.RegistryClient { return registrypb.NewRegistryClient(a.conn) }
func (a *attempt) cluster() registrypb.ClusterClient   { return registrypb.NewClusterClient(a.conn) }
func (a *attempt) tokens() registrypb.TokensClient     { return registrypb.NewTokensClient(a.conn) }

// call is one call of the user: attempts on the nodes of a rotation, until one gives
// a definite answer or the context ends.
type call struct {
	c    *Client
	op   string
	kind kind
	read *readOptions
	seen uint64 // highest index known when the call began

	nodes    rotation
	failures map[string]string // last error message by address
	last     *Error            // the most informative failure
	unknown  bool              // an earlier attempt may have taken effect
	behind   bool              // in this round a node had not reached the index or timed out
	stale    *Error            // in this round, a node's refusal as stale
	strange  int               // answers that the token is not valid
}

// maxStrange bounds the attempts of a call whose token is not valid. A node may not have
// applied yet that the token was created or rotated; the leader has.
const maxStrange = 3

type attemptFunc func(ctx context.Context, a *attempt) error

func (c *Client) newCall(op string, k kind) *call {
	return &call{c: c, op: op, kind: k, nodes: newRotation(c), failures: map[string]string{}}
}

// do runs a call that does not read replicated state.
func (c *Client) do(ctx context.Context, op string, k kind, f attemptFunc) error {
	return c.newCall(op, k).run(ctx, f)
}

// bounded adds the client's call timeout to a context without a deadline.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.cfg.callTimeout)
}

func (cl *call) run(ctx context.Context, f attemptFunc) error {
	if !cl.kind.long {
		var cancel context.CancelFunc
		ctx, cancel = cl.c.bounded(ctx)
		defer cancel()
	}
	// A write that the deadline cuts off has an unknown outcome. So no further attempt
	// begins in the last tenth of the time.
	var latest time.Time
	if deadline, ok := ctx.Deadline(); ok && cl.kind.write {
		latest = deadline.Add(-min(cl.c.cfg.attemptTimeout, time.Until(deadline)/10))
	}
	for {
		if !latest.IsZero() && cl.last != nil && !cl.unknown && time.Now().After(latest) {
			return cl.giveUp(context.DeadlineExceeded)
		}
		ep := cl.nodes.next()
		if ep == nil {
			if err := cl.nextRound(ctx); err != nil {
				return err
			}
			continue
		}
		sent, err := cl.try(ctx, ep, f)
		if err == nil {
			cl.c.pool.worked(ep, time.Now())
			return nil
		}
		if err := cl.classify(ctx, ep, sent, err); err != nil {
			return err
		}
	}
}

// try makes one attempt. sent is false only if the request cannot have been sent.
func (cl *call) try(ctx context.Context, ep *endpoint, f attemptFunc) (sent bool, err error) {
	conn, err := ep.get(cl.c)
	if err != nil {
		return false, err
	}
	if cl.kind.timeouts > 0 {
		d := cl.c.cfg.attemptTimeout * time.Duration(cl.kind.timeouts) << min(cl.nodes.round, 5)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	var p peer.Peer // set once a stream to the node exists
	a := &attempt{ep: ep, conn: conn, opts: []grpc.CallOption{grpc.Peer(&p)}}
	if cl.read != nil {
		a.read = cl.read.proto(cl.seen, cl.fallback())
	}
	err = f(ctx, a)
	return p.Addr != nil || a.sent, err
}

// fallback is true in every second round after nodes could not reach the index
// that this client remembers. The call is then linearizable, which is at least as
// strong and shows whether the index exists: otherwise a client could not use a
// cluster that was restored from an older snapshot.
func (cl *call) fallback() bool { return cl.behind && cl.nodes.round%2 == 1 }

// classify returns the error to end the call with, or nil to go on.
func (cl *call) classify(ctx context.Context, ep *endpoint, sent bool, err error) error {
	if errors.Is(err, ErrClosed) { // the endpoint was closed, or the whole client
		if cl.c.ctx.Err() != nil {
			return cl.giveUp(ErrClosed)
		}
		return nil
	}
	e := errorFromStatus(cl.op, err)
	ep.explained(e)
	switch e.Reason {
	case reasonNoLeader, reasonBusy, reasonNotReady, reasonWrongCluster:
	case reasonUnauthenticated:
		cl.c.token.refused()
		if cl.strange++; cl.strange == maxStrange || cl.c.token.header.Load() == nil {
			return cl.refused(ep, e)
		}
	case reasonPermissionDenied:
		return cl.refused(ep, e)
	case reasonStale:
		cl.stale = e
	case reasonOutcomeUnknown:
		cl.unknown = true
		if e.Field != "" { // no node can tell
			cl.last, cl.failures[ep.addr] = e, e.Message
			return cl.giveUp(nil)
		}
	case reasonUnspecified:
		if !transient(e.Code) {
			return e
		}
		cl.unknown = cl.unknown || sent && cl.kind.write
	default:
		return e
	}
	cl.last = moreInformative(cl.last, e)
	cl.failures[ep.addr] = e.Message
	switch {
	case ctx.Err() != nil: // not the node's fault
		return cl.giveUp(ctx.Err())
	case cl.kind.once && cl.unknown:
		return cl.giveUp(nil)
	}
	cl.behind = cl.behind || cl.read != nil && cl.seen > cl.read.minIndex && (cl.stale != nil || e.Code == codes.DeadlineExceeded)
	cl.nodes.failed(ep, e)
	cl.c.cfg.logger.Debug("call moves to another node", "op", cl.op, "addr", ep.addr, "error", e.Message)
	return nil
}

// refused ends a call whose token a node refused. An earlier attempt may have taken
// effect, for instance one that revoked the token.
func (cl *call) refused(ep *endpoint, e *Error) error {
	if !cl.unknown {
		return e
	}
	cl.failures[ep.addr] = e.Message
	return cl.giveUp(nil)
}

// moreInformative is the error of two to report: an answer of the own cluster comes
// before ErrWrongCluster, and that before a failed connection.
func moreInformative(before, e *Error) *Error {
	rank := func(e *Error) int {
		switch e.Reason {
		case reasonUnspecified:
			return 0
		case reasonWrongCluster:
			return 1
		default:
			return 2
		}
	}
	if before != nil && rank(before) > rank(e) {
		return before
	}
	return e
}

// transient codes come from a connection that broke or was not established, or from
// an attempt that timed out.
func transient(c codes.Code) bool {
	return c == codes.Unavailable || c == codes.DeadlineExceeded || c == codes.Canceled
}

// nextRound waits before all nodes are tried again.
func (cl *call) nextRound(ctx context.Context) error {
	if cl.stale != nil && (!cl.behind || cl.fallback()) {
		return cl.stale // no node is fresh enough
	}
	if cl.nodes.allForeign() {
		return cl.giveUp(nil)
	}
	cl.stale = nil
	switch {
	case cl.c.pause(ctx, cl.nodes.nextRound()):
		return nil
	case ctx.Err() != nil:
		return cl.giveUp(ctx.Err())
	default:
		return cl.giveUp(ErrClosed)
	}
}

// pause waits; it reports false when ctx or the client ended.
func (c *Client) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}

// backoff doubles with every round up to a maximum, which is larger where the token was
// refused: only an operator ends that. Half of it is random, so that clients do not
// retry together.
func (c *config) backoff(round int, refused bool) time.Duration {
	most := c.backoffMax
	if refused {
		most = c.refusedMax
	}
	d := min(c.backoffBase<<min(round, 10), most)
	return d/2 + rand.N(d/2+1)
}

// giveUp makes the error of a call that ends without an answer.
func (cl *call) giveUp(cause error) error {
	e := &Error{Op: cl.op, Code: codes.Unavailable, cause: cause}
	switch {
	case cl.unknown:
		e.Reason = reasonOutcomeUnknown
		e.Message = "the change may or may not have taken effect; repeat the call: " + cl.failureList("")
		if cl.last != nil && cl.last.Reason == reasonNoLeader {
			e.Message = "the cluster has no leader, and " + e.Message
		}
	case errors.Is(cause, ErrClosed):
		return ErrClosed
	case cl.last != nil && cl.last.Reason != reasonUnspecified:
		*e = *cl.last
		e.cause = cause
		e.Message += "; tried " + cl.failureList(e.Message)
	case cl.read != nil && cl.read.minIndex > 0:
		e.Message = fmt.Sprintf("no node answered at index %d or above: %s", cl.read.minIndex, cl.failureList(""))
	default:
		e.Message = "no node could be reached: " + cl.failureList("")
	}
	if cause != nil {
		e.Message += " (" + cause.Error() + ")"
	}
	return e
}

// failureList lists the addresses that were tried with their errors, without an error
// that is reported already.
func (cl *call) failureList(reported string) string {
	var parts []string
	for addr, msg := range cl.failures {
		if msg != reported {
			addr += ": " + msg
		}
		parts = append(parts, addr)
	}
	sort.Strings(parts)
	if len(parts) == 0 {
		return "none of " + strings.Join(cl.c.pool.addrs(), ", ") + " was tried"
	}
	return strings.Join(parts, "; ")
}
