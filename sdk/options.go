package sdk

import (
	"context"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Option changes how a Client works.
type Option func(*config)

// WithLogger makes the client log what happens behind the caller's back:
// nodes that fail, leases that are lost. The default logs nothing.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) {
		if l != nil {
			c.logger = l
		}
	}
}

// WithCallTimeout bounds a call whose context has no deadline; 10 s by default.
func WithCallTimeout(d time.Duration) Option { return func(c *config) { c.callTimeout = d } }

// WithAttemptTimeout bounds how long a read waits for one node before it asks
// the next; 1 s by default. A write waits three times, a status five times as
// long. It doubles with every round over all nodes.
func WithAttemptTimeout(d time.Duration) Option { return func(c *config) { c.attemptTimeout = d } }

// WithCloseTimeout bounds the deregistrations of a Close; 5 s by default.
func WithCloseTimeout(d time.Duration) Option { return func(c *config) { c.closeTimeout = d } }

// WithRefreshInterval sets how often the client tries to return to the node that
// it started with, if calls go to another; a minute by default. Zero or less: it
// never does, does not follow the addresses of the cluster's nodes, and knows
// only those it was given.
func WithRefreshInterval(d time.Duration) Option { return func(c *config) { c.refresh = d } }

// WithCluster says which cluster the client is of: NAME, NAME/ID or /ID, where the
// id is that of Status and of receipts. Nodes of another are refused: see
// ErrWrongCluster. What is not given here, the first answer tells; an empty string
// leaves all of it to that.
func WithCluster(cluster string) Option { return func(c *config) { c.cluster = cluster } }

// WithDialer replaces the dialer of the connections, a net.Dialer by default.
// Either way nodes are reached directly: the environment's proxy variables do
// not count. With nil the default stays.
func WithDialer(dial func(ctx context.Context, addr string) (net.Conn, error)) Option {
	return func(c *config) {
		if dial != nil {
			c.dialer = dial
		}
	}
}

// WithDialOptions adds gRPC options, transport credentials for instance. They
// come after the client's own and win over them.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(c *config) { c.dialOptions = append(c.dialOptions, opts...) }
}

// ReadOption says how fresh an answer must be. Without any, the answering
// node's own state is fresh enough, if it is not older than what this client
// has seen before.
type ReadOption func(*readOptions)

type readOptions struct {
	linearizable bool
	minIndex     uint64
	maxStaleness time.Duration
	receipt      *Receipt
}

// Linearizable demands an answer that reflects every write that was
// acknowledged, to anyone, before the call.
func Linearizable() ReadOption { return func(o *readOptions) { o.linearizable = true } }

// AtLeast demands an answer from a node that has applied the log up to index.
func AtLeast(index uint64) ReadOption { return func(o *readOptions) { o.minIndex = index } }

// MaxStaleness refuses, with ErrStale, an answer of a node that last heard
// from the leader longer ago than d.
func MaxStaleness(d time.Duration) ReadOption { return func(o *readOptions) { o.maxStaleness = d } }

// WithReceipt fills r when the call succeeds.
func WithReceipt(r *Receipt) ReadOption { return func(o *readOptions) { o.receipt = r } }

func readOptionsOf(opts []ReadOption) readOptions {
	var o readOptions
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// proto builds the wire form. seen is the highest index that the client knows.
func (o readOptions) proto(seen uint64, linearizable bool) *registrypb.ReadOptions {
	r := &registrypb.ReadOptions{
		Linearizable: o.linearizable || linearizable,
		MinIndex:     max(o.minIndex, seen),
	}
	if linearizable {
		r.MinIndex = o.minIndex
	}
	if o.maxStaleness > 0 {
		r.MaxStaleness = durationpb.New(o.maxStaleness)
	}
	return r
}
