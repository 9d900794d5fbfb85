package sdk

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// A rotation tries the leader first, each node once a round, and nodes that are
// suspect last; it knows a round in which all are of another cluster.
func TestRotation(t *testing.T) {
	c := &Client{cfg: newConfig(nil), pool: newPool([]string{"a:1", "b:1", "c:1"})}
	c.pool.home, c.pool.current = c.pool.all[0], c.pool.all[0]
	r := newRotation(c)
	round := func(fail *Error) string {
		var order []string
		for ep := r.next(); ep != nil; ep = r.next() {
			order = append(order, ep.addr)
			r.failed(ep, fail)
		}
		return strings.Join(order, " ")
	}
	noLeader, foreign := &Error{Reason: reasonNoLeader}, &Error{Reason: reasonWrongCluster}
	r.leader = "c:1"
	if got := round(noLeader); got != "c:1 a:1 b:1" {
		t.Errorf("the leader first: %s", got)
	}
	if r.allForeign() || !r.exhausted() {
		t.Errorf("%+v", r)
	}
	r.nextRound()
	r.leader = ""
	r.failed(c.pool.all[1], &Error{Code: codes.Unavailable}) // b is suspect from now on
	r.nextRound()
	if got := round(foreign); !strings.HasSuffix(got, "b:1") || strings.Count(got, ":") != 3 || !r.allForeign() {
		t.Errorf("%s, all foreign: %v", got, r.allForeign())
	}
	first, second := r.nextRound(), r.nextRound()
	if r.round != 4 || second < first || len(r.tried) > 0 {
		t.Errorf("round %d after pauses of %v and %v", r.round, first, second)
	}
	if r.restart(); r.round != 0 || r.next() == nil {
		t.Errorf("round %d after a success", r.round)
	}
}
