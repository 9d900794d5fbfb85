package sdk

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Bounds of a connection. A node that is stopped or cut off without a word is
// noticed by the bound on an attempt first; the keepalive makes sure that the
// connection to it does not outlive it.
const (
	connectTimeout   = 3 * time.Second
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	maxMessage       = 64 << 20 // of an answer: a node's limit is 4 MiB, that of earlier versions was this
	maxRequest       = 1 << 20  // the server's limit
)

// endpoint is a node's client address and the connection to it.
type endpoint struct {
	addr string
	seed bool // given to Dial, not learnt

	mu     sync.Mutex // guards the next fields; taken after pool.mu, never before
	conn   *grpc.ClientConn
	dialed time.Time        // when conn was made
	left   *grpc.ClientConn // by redial
	closed bool

	// Guarded by pool.mu: an endpoint that failed is not chosen before suspect,
	// unless all others were tried.
	suspect  time.Time
	failures int
	works    bool // answered, and did not fail since
	listed   bool // named by the cluster
	dropped  bool // not in the pool any more
}

// get returns the connection, made at the first call. It does not wait for it.
func (e *endpoint) get(c *Client) (*grpc.ClientConn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	if e.conn == nil {
		conn, err := connect(e.addr, c)
		if err != nil {
			return nil, err
		}
		e.conn, e.dialed = conn, time.Now()
	}
	return e.conn, nil
}

// redialAge is how old a connection to a node of another cluster is at least when
// it is left.
const redialAge = time.Second

// redial leaves the connection, so that the next call resolves the address anew:
// a healthy one to a node of another cluster would stay for ever. Calls that are
// under way on it end by themselves.
func (e *endpoint) redial() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn == nil || time.Since(e.dialed) < redialAge {
		return
	}
	if e.left != nil {
		_ = e.left.Close() // its calls were answered, or are of no use
	}
	e.left, e.conn = e.conn, nil
}

// close ends the connection and with it every call on it.
func (e *endpoint) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	var errs []error
	for _, conn := range []*grpc.ClientConn{e.conn, e.left} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	e.conn, e.left = nil, nil
	return errors.Join(errs...)
}

// connect uses the passthrough scheme: the dialer then resolves the name at
// every dial, so that a node may come back with another IP. Nodes are reached
// directly, whatever proxy the environment names.
func connect(addr string, c *Client) (*grpc.ClientConn, error) {
	cfg := c.cfg
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(cfg.dialer),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithChainUnaryInterceptor(c.identity.unary),
		grpc.WithChainStreamInterceptor(c.identity.stream),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				// A lease must not run out while its node is up again.
				BaseDelay: cfg.backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: cfg.backoffMax,
			},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	}
	return grpc.NewClient("passthrough:///"+addr, append(opts, cfg.dialOptions...)...)
}

func defaultDialer(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{Timeout: connectTimeout}).DialContext(ctx, "tcp", addr)
}
