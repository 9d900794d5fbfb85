package sdk

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// nodesProgress is how often a node confirms an unchanged list of nodes. The
// keepalive detects a broken connection earlier.
const nodesProgress = time.Minute

// refreshLoop follows the nodes' addresses, so that the client survives the loss of
// the given ones, and returns to the home node, so that clients spread again after
// an outage of a node. It starts some time after the first answer, which a command
// with one call does not reach.
func (c *Client) refreshLoop() {
	select {
	case <-c.pool.warm:
	case <-c.ctx.Done():
		return
	}
	if !c.pause(c.ctx, min(c.cfg.firstRefresh, c.cfg.refresh)) {
		return
	}
	if err := c.start(c.learnLoop); err != nil {
		return // the client is being closed
	}
	// Between 0.8 and 1.2 intervals, so that clients do not stay synchronized.
	for c.pause(c.ctx, c.cfg.refresh*4/5+rand.N(c.cfg.refresh*2/5+1)) {
		if err := c.goHome(); err != nil && c.ctx.Err() == nil {
			c.cfg.logger.Debug("the home node does not answer", "error", err)
		}
	}
}

// learnLoop follows the list of nodes over a stream and updates the pool's
// addresses. When a node stops, the addresses of the others are known already.
func (c *Client) learnLoop() {
	w, err := c.watchNodes(c.ctx, nodesProgress)
	if err != nil {
		return // the client is being closed
	}
	for e, err := range w.All(c.ctx) {
		if c.ctx.Err() != nil {
			return
		}
		if err != nil {
			c.cfg.logger.Warn("the list of nodes cannot be followed", "error", err)
			return
		}
		var addrs []string
		for _, n := range e.Nodes {
			if n.Addr != "" {
				addrs = append(addrs, n.Addr)
			}
		}
		if len(addrs) > 0 {
			c.pool.learn(addrs)
			c.cfg.logger.Debug("list of nodes", "addrs", addrs)
		}
	}
}

// goHome asks the home node for its status if calls go to another, and returns to it
// if it knows a leader.
func (c *Client) goHome() error {
	home := c.pool.homeIfAway()
	if home == nil {
		return nil
	}
	conn, err := home.get(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, min(c.cfg.callTimeout, c.cfg.attemptTimeout*time.Duration(statusKind.timeouts)))
	defer cancel()
	resp, err := registrypb.NewClusterClient(conn).Status(ctx, &registrypb.StatusRequest{})
	if err != nil {
		if c.ctx.Err() == nil {
			c.failed(home, errorFromStatus("refresh", err))
		}
		return err
	}
	c.pool.worked(home, time.Now())
	if resp.GetLeader() != "" {
		c.pool.returnHome()
	}
	return nil
}
