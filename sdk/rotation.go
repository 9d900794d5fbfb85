package sdk

import "time"

// rotation chooses the nodes for one call, one followed stream or the heartbeats: in
// rounds, each node once a round, with a growing pause between rounds. All rotations
// of a client share its pool, which has the suspect nodes. A rotation is for one
// goroutine.
//
// Example: of A, B and C, C leads and A is current. Heartbeats try C, then A, then
// B. A watch tries A, then B, then C. If B is of another cluster it is suspect, and
// the last of the next rounds of both.
type rotation struct {
	c       *Client
	leader  string             // address of the node to try first, if it is healthy
	round   int                // rounds without success
	tried   map[*endpoint]bool // in this round
	foreign int                // in this round, nodes of another cluster
	refused int                // in this round, nodes that refused the token
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

// exhausted reports whether all nodes were tried in this round.
func (r *rotation) exhausted() bool { return r.c.pool.pick(time.Now(), r.tried) == nil }

// allForeign reports whether all nodes of this round are of another cluster.
func (r *rotation) allForeign() bool { return r.foreign == len(r.tried) }

// nextRound begins a round and returns the pause before it.
func (r *rotation) nextRound() time.Duration {
	refused := r.refused > 0 && r.refused == len(r.tried)
	r.round++
	r.foreign, r.refused = 0, 0
	clear(r.tried)
	return r.c.cfg.backoff(r.round-1, refused)
}

// restart begins the first round, after a success.
func (r *rotation) restart() {
	r.round, r.foreign, r.refused = 0, 0, 0
	clear(r.tried)
}

// failed records the failure of a node, here and in the pool.
func (r *rotation) failed(ep *endpoint, err *Error) {
	r.tried[ep] = true
	if err.Reason == reasonWrongCluster {
		r.foreign++
	}
	if tokenRefused(err) {
		r.refused++
		r.c.token.refused()
	}
	r.c.failed(ep, err)
}

// failed records the failure of a node in the pool, and replaces the connection to a
// node of another cluster.
func (c *Client) failed(ep *endpoint, err *Error) {
	c.pool.failed(ep, time.Now(), nodeFault(err))
	if err.Reason == reasonWrongCluster {
		ep.redial()
	}
}

// nodeFault reports whether an error makes the node suspect. A node without a leader,
// for instance, is as good as the others.
func nodeFault(err *Error) bool {
	switch err.Reason {
	case reasonNotReady, reasonWrongCluster:
		return true
	case reasonUnspecified:
		return transient(err.Code)
	}
	return false
}
