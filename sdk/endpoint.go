package sdk

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// Bounds of a connection. The attempt timeout detects a silent node first; the
// keepalive then ends the connection to it.
const (
	connectTimeout   = 3 * time.Second
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	maxMessage       = 64 << 20 // of an answer: the limit of nodes is 4 MiB, and was this in earlier versions
	maxRequest       = 1 << 20  // the server's limit
)

// endpoint is a node's client address and the connection to it.
type endpoint struct {
	addr string
	seed bool // given to Dial

	wrong     atomic.Pointer[error] // with the last attempt to connect; nil: nothing
	registers gatherer

	mu     sync.Mutex // guards the next fields; taken after pool.mu, never before
	conn   *grpc.ClientConn
	dialed time.Time        // when conn was made
	old    *grpc.ClientConn // by redial
	closed bool

	// Guarded by pool.mu. Until the time suspect, an endpoint that failed is chosen
	// only after all others.
	suspect  time.Time
	failures int
	works    bool // answered and has not failed since
	listed   bool // in the cluster's list of nodes
	dropped  bool // no longer in the pool
}

// get returns the connection, without waiting until it is established.
func (e *endpoint) get(c *Client) (*grpc.ClientConn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	if e.conn == nil {
		conn, err := connect(e, c)
		if err != nil {
			return nil, err
		}
		e.conn, e.dialed = conn, time.Now()
	}
	return e.conn, nil
}

// redialAge is the least age of a connection that redial replaces.
const redialAge = time.Second

// redial makes the next call resolve the address again: a healthy connection to a
// node of another cluster would never end. Calls in progress on it finish.
func (e *endpoint) redial() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn == nil || time.Since(e.dialed) < redialAge {
		return
	}
	if e.old != nil {
		_ = e.old.Close() // its calls have ended or are of no use
	}
	e.old, e.conn = e.conn, nil
}

// close ends the connection and with it every call on it.
func (e *endpoint) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	var errs []error
	for _, conn := range []*grpc.ClientConn{e.conn, e.old} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	e.conn, e.old = nil, nil
	return errors.Join(errs...)
}

// connect uses the passthrough scheme: the dialer then resolves the name at every
// dial, so that a node may return with another IP address. Connections ignore the
// environment's proxy.
func connect(e *endpoint, c *Client) (*grpc.ClientConn, error) {
	cfg := c.cfg
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(e.credentials(cfg)),
		grpc.WithContextDialer(e.dial(cfg.dialer)),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithChainUnaryInterceptor(c.identity.unary),
		grpc.WithChainStreamInterceptor(c.identity.stream),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				// A lease must not run out after its node is up again.
				BaseDelay: cfg.backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: cfg.backoffMax,
			},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	}
	if c.token.header.Load() != nil { // else gRPC would work for it at every call
		opts = append(opts, grpc.WithPerRPCCredentials(c.token))
	}
	return grpc.NewClient("passthrough:///"+e.addr, append(opts, cfg.dialOptions...)...)
}

func defaultDialer(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{Timeout: connectTimeout}).DialContext(ctx, "tcp", addr)
}
