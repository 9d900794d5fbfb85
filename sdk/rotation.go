package sdk

import "time"

// rotation chooses the nodes that one call, one followed stream or the heartbeats
// try: in rounds, each node once a round, with a pause between two rounds that
// grows. All rotations of a client share its pool, which knows which nodes failed
// lately. A rotation is for one goroutine.
//
// Example: given A, B and C, with C the leader. Heartbeats try C, then the node
// that calls go to, A, then B. A watch tries A, B, C. When B turns out to be of
// another cluster it is suspect, so the next round of either begins elsewhere.
type rotation struct {
	c       *Client
	leader  string             // address of the node to try first, if it is healthy
	round   int                // rounds without success
	tried   map[*endpoint]bool // in this round
	foreign int                // in this round, nodes of another cluster
}

func newRotation(c *Client) rotation { return rotation{c: c, tried: map[*endpoint]bool{}} }

// next returns the node to try, or nil when all were tried in this round.
func (r *rotation) next() *endpoint {
	now := time.Now()
	ep := r.c.pool.healthy(r.leader, now)
	if ep == nil || r.tried[ep] {
		ep = r.c.pool.pick(now, r.tried)
	}
	if ep != nil {
		r.tried[ep] = true
	}
	return ep
}

// exhausted tells whether all nodes were tried in this round.
func (r *rotation) exhausted() bool { return r.c.pool.pick(time.Now(), r.tried) == nil }

// allForeign tells whether all nodes of this round are of another cluster.
func (r *rotation) allForeign() bool { return r.foreign == len(r.tried) }

// nextRound begins a round and returns the pause before it.
func (r *rotation) nextRound() time.Duration {
	r.round++
	r.foreign = 0
	clear(r.tried)
	return r.c.cfg.backoff(r.round - 1)
}

// restart begins the first round, after a success.
func (r *rotation) restart() {
	r.round, r.foreign = 0, 0
	clear(r.tried)
}

// failed counts the node as tried, and tells the pool what it failed with.
func (r *rotation) failed(ep *endpoint, err *Error) {
	r.tried[ep] = true
	if err.Reason == reasonWrongCluster {
		r.foreign++
	}
	r.c.failed(ep, err)
}

// failed tells the pool what a node failed with, and closes the connection to a
// node of another cluster, so that its address is resolved anew.
func (c *Client) failed(ep *endpoint, err *Error) {
	c.pool.failed(ep, time.Now(), nodeFault(err))
	if err.Reason == reasonWrongCluster {
		ep.redial()
	}
}

// nodeFault tells whether an error is a reason to pass the node over for a while.
// A node that knows no leader, for instance, is as good as the others.
func nodeFault(err *Error) bool {
	switch err.Reason {
	case reasonNotReady, reasonWrongCluster:
		return true
	case reasonUnspecified:
		return transient(err.Code)
	}
	return false
}
