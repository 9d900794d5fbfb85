package rpc

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store/storetest"
)

// While a node stops, the calls under way go to the leader, also to one that begins to
// lead meanwhile.
func TestCallsGoToTheLeaderDuringADrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		nodes := c.Three()
		n := nodes[0]
		if c.Leader().ID == n.ID {
			n = nodes[1]
		}
		s := serverOf(t, n)
		leads := func(leader *storetest.Node) {
			t.Helper()
			c.Await("the leader that calls go to", func() bool { return s.term.Load().leader == leader.Self().Bind })
		}
		leads(c.Leader())
		s.Drain(time.Second)
		if err := s.ctx.Err(); err == nil {
			t.Error("streams go on")
		}
		if err := s.term.Load().ctx.Err(); err != nil {
			t.Errorf("no call reaches the leader: %v", err)
		}

		before := s.term.Load()
		var next *storetest.Node
		for _, other := range nodes {
			if other.ID != n.ID && other.ID != c.Leader().ID {
				next = other
			}
		}
		if err := c.Leader().Transfer(c.Context(), next.ID); err != nil {
			t.Fatal(err)
		}
		leads(next)
		if err := s.term.Load().ctx.Err(); err != nil {
			t.Errorf("no call reaches the next leader: %v", err)
		}
		if before.ctx.Err() == nil {
			t.Error("calls wait for the leader before")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s.term.Load().ctx.Err() == nil {
			t.Error("calls go to the leader after the close")
		}
	})
}
