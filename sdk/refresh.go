package sdk

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// refreshLoop learns the nodes' addresses, so that the client survives the
// loss of those it was given, and returns to the home node, so that clients
// spread over the cluster again after a node was away. It begins when a call
// has worked, a while later: a command that asks once never gets here.
func (c *Client) refreshLoop() {
	select {
	case <-c.warm:
	case <-c.ctx.Done():
		return
	}
	t := time.NewTimer(min(c.cfg.firstRefresh, c.cfg.refresh))
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
		}
		if err := c.refreshOnce(c.ctx); err != nil && c.ctx.Err() == nil {
			c.cfg.logger.Debug("could not refresh the cluster's addresses", "error", err)
		}
		// Between 0.8 and 1.2 intervals: clients started together drift apart.
		t.Reset(c.cfg.refresh*4/5 + rand.N(c.cfg.refresh*2/5+1))
	}
}

func (c *Client) refreshOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.callTimeout)
	defer cancel()
	resp, err := c.askHome(ctx)
	if err != nil {
		if resp, err = c.status(ctx, "refresh", ""); err != nil {
			return err
		}
	}
	var addrs []string
	for _, n := range resp.GetNodes() {
		if n.GetAddr() != "" {
			addrs = append(addrs, n.GetAddr())
		}
	}
	if len(addrs) > 0 {
		c.pool.learn(addrs)
	}
	return nil
}

// askHome asks the home node alone, and returns to it if it is in touch with
// a leader.
func (c *Client) askHome(ctx context.Context) (*registrypb.StatusResponse, error) {
	home := c.pool.home
	conn, err := home.get(c.cfg)
	if err != nil {
		return nil, err
	}
	attempt, cancel := context.WithTimeout(ctx, c.cfg.attemptTimeout*time.Duration(statusKind.patience))
	defer cancel()
	resp, err := registrypb.NewClusterClient(conn).Status(attempt, &registrypb.StatusRequest{})
	if err != nil {
		if ctx.Err() == nil {
			e := errorFromStatus("refresh", err)
			c.pool.failed(home, time.Now(), e.Reason == ReasonNotReady || transient(e.Code))
		}
		return nil, err
	}
	c.pool.worked(home, time.Now())
	if resp.GetLeader() != "" {
		c.pool.returnHome()
	}
	return resp, nil
}
