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

// WithLogger logs what happens in the background: nodes that fail, leases that are
// lost. The default logs nothing.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) {
		if l != nil {
			c.logger = l
		}
	}
}

// WithCallTimeout bounds a call whose context has no deadline; 10 s by default.
func WithCallTimeout(d time.Duration) Option { return func(c *config) { c.callTimeout = d } }

// WithAttemptTimeout bounds how long a read waits for one node before it tries the
// next; 1 s by default. A write waits three times, a status five times as long. It
// doubles with every round over all nodes.
func WithAttemptTimeout(d time.Duration) Option { return func(c *config) { c.attemptTimeout = d } }

// WithCloseTimeout bounds the deregistrations of a Close; 5 s by default.
func WithCloseTimeout(d time.Duration) Option { return func(c *config) { c.closeTimeout = d } }

// WithRefreshInterval sets how often the client tries to return to the node that
// it started with, if calls go to another; a minute by default. With zero or less
// it does not, and uses only the given addresses.
func WithRefreshInterval(d time.Duration) Option { return func(c *config) { c.refresh = d } }

// WithCluster sets the cluster of the client: NAME, NAME/ID or /ID, with the id of
// Status and of receipts. Answers of other clusters are ErrWrongCluster. The first
// answer sets what is not given; the default is an empty string.
func WithCluster(cluster string) Option { return func(c *config) { c.cluster = cluster } }

// WithToken sends a token with every call, as a cluster with tokens demands. It is the
// text that CreateToken returned; empty: none. Without TLS the
// token can be read on the network.
func WithToken(token string) Option {
	return func(c *config) { c.token, c.tokenFile = token, "" }
}

// WithTokenFile is WithToken with the token in a file, which Dial reads. It is read again
// while the client makes calls, at most once a second, and after a node refused the
// token. A file that cannot be used then is logged, and the token before stays in use.
func WithTokenFile(path string) Option {
	return func(c *config) { c.token, c.tokenFile = "", path }
}

// WithDialer replaces the dialer of the connections, a net.Dialer by default; nil
// keeps it. With either, connections ignore the environment's proxy variables.
func WithDialer(dial func(ctx context.Context, addr string) (net.Conn, error)) Option {
	return func(c *config) {
		if dial != nil {
			c.dialer = dial
		}
	}
}

// WithDialOptions adds gRPC options, transport credentials for instance. They
// override the client's own.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(c *config) { c.dialOptions = append(c.dialOptions, opts...) }
}

// ReadOption limits the staleness of an answer. By default a node answers from its
// own state, if that is not older than what this client has seen.
type ReadOption func(*readOptions)

type readOptions struct {
	linearizable bool
	minIndex     uint64
	maxStaleness time.Duration
	receipt      *Receipt
}

// Linearizable demands an answer that reflects every write that was acknowledged
// before the call, to any client.
func Linearizable() ReadOption { return func(o *readOptions) { o.linearizable = true } }

// AtLeast demands an answer from a node that has applied the log up to index.
func AtLeast(index uint64) ReadOption { return func(o *readOptions) { o.minIndex = index } }

// MaxStaleness demands an answer of a node that heard from the leader within d;
// without one the call ends with ErrStale.
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
