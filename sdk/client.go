package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// closers bounds how many deregistrations a Close has under way at once.
const closers = 16

// Client talks to a cluster. It is safe for use by many goroutines; a process
// needs one.
type Client struct {
	cfg      *config
	pool     *pool
	identity identity      // of the cluster
	token    *credential   // of this client
	seen     atomic.Uint64 // highest log index in an answer
	// seenAt is when seen was last confirmed, in nanoseconds since began.
	seenAt atomic.Int64
	began  time.Time

	ctx    context.Context // ends when the registrations are closed
	cancel context.CancelFunc
	wg     sync.WaitGroup // refresher

	mu      sync.Mutex // guards the fields below; never held during a call
	closing bool
	keeper  *keeper // made by the first Register
	regs    map[*Registration]struct{}

	closed   chan struct{}
	closeErr error // set before closed is closed
}

// Dial makes a client of the cluster that the given nodes belong to: client
// addresses, "host:port,host:port". It checks every address and does not
// connect: the first call does. Any node will do, and more than one lets the
// client start while one of them is down; it learns the other addresses by itself.
//
// Without WithCluster the first answer sets the cluster, for the client's life. If
// that answer comes from a node of a wrong cluster, at a reused or mistyped address,
// the client keeps that cluster and refuses the right one with ErrWrongCluster. So
// use WithCluster, at least with a name, in every client that runs long or writes.
func Dial(target string, opts ...Option) (*Client, error) {
	addrs, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	cfg := newConfig(opts)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := cfg.openTLS(); err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, pool: newPool(addrs), began: time.Now(),
		regs: map[*Registration]struct{}{}, closed: make(chan struct{}),
	}
	if err := c.identity.configure(cfg); err != nil {
		return nil, err
	}
	if c.token, err = openCredential(cfg); err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg.refresh > 0 {
		c.wg.Go(c.refreshLoop)
	}
	return c, nil
}

// Close ends the client: its registrations are deregistered, within the close
// timeout, calls in progress end with ErrClosed, and every goroutine of the
// client has ended when it returns. It returns why registrations
// could not be deregistered; their leases then run out. Further calls
// return the same. Not to be called from an OnEvent or OnChange function.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		<-c.closed
		return c.closeErr
	}
	c.closing = true // 1. new calls are refused
	keeper := c.keeper
	regs := make([]*Registration, 0, len(c.regs))
	for r := range c.regs {
		regs = append(regs, r)
	}
	c.mu.Unlock()

	err := c.closeAll(regs) // 2. heartbeats stop, members are deregistered
	c.cancel()              // 3. calls in progress, refresher, keeper, watches and rings are cancelled
	if keeper != nil {
		keeper.wait() // 4. no stream, re-registration or event follows
	}
	c.closeErr = errors.Join(err, c.pool.close()) // 5. connections
	c.wg.Wait()                                   // 6. refresher, watches and rings
	close(c.closed)
	return c.closeErr
}

func (c *Client) closeAll(regs []*Registration) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.closeTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(closers)
	errs := make([]error, len(regs))
	for i, r := range regs {
		g.Go(func() error {
			errs[i] = r.CloseContext(ctx)
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d services not deregistered, the first: %w", len(errs), len(regs), errs[0])
}

// start runs f in a goroutine that Close waits for; f ends with the client's
// context. It refuses once the client is being closed.
func (c *Client) start(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return ErrClosed
	}
	c.wg.Go(f)
	return nil
}

// open refuses calls once the client is being closed.
func (c *Client) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return ErrClosed
	}
	return nil
}

// observe remembers the highest index, so that the client never reads an older
// state after a newer one when it changes nodes.
func (c *Client) observe(index uint64) {
	for {
		seen := c.seen.Load()
		if index < seen || index == 0 {
			return
		}
		if c.seen.CompareAndSwap(seen, index) {
			c.seenAt.Store(int64(time.Since(c.began)))
			return
		}
	}
}
