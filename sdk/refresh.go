package sdk

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// nodesProgress is how often a node confirms a list of nodes that has not
// changed. A connection that broke without a word is noticed by its keepalive.
const nodesProgress = time.Minute

// refreshLoop learns the nodes' addresses as they change, so that the client
// survives the loss of those it was given, and returns to the home node, so that
// clients spread over the cluster again after a node was away. It begins when a
// node has answered, a while later: a command that asks once never gets here.
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
	// Between 0.8 and 1.2 intervals: clients started together drift apart.
	for c.pause(c.ctx, c.cfg.refresh*4/5+rand.N(c.cfg.refresh*2/5+1)) {
		if err := c.goHome(); err != nil && c.ctx.Err() == nil {
			c.cfg.logger.Debug("could not return to the first node", "error", err)
		}
	}
}

// learnLoop keeps the pool's addresses those that the cluster's nodes have. The
// list comes over a stream, with each change: a node that stops, or is lost, has
// named the others by then, and the next one is asked at once.
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
			c.cfg.logger.Warn("the nodes do not tell the cluster's addresses", "error", err)
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
			c.cfg.logger.Debug("the cluster's addresses", "addrs", addrs)
		}
	}
}

// goHome asks the home node, if calls go to another, and returns to it if it is
// in touch with a leader.
func (c *Client) goHome() error {
	home := c.pool.away()
	if home == nil {
		return nil
	}
	conn, err := home.get(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, min(c.cfg.callTimeout, c.cfg.attemptTimeout*time.Duration(statusKind.patience)))
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
