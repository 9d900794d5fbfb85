package store_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store/storetest"
)

// The lag of a leader that is cut off grows after an election timeout, before and after
// it steps down, until the heal.
func TestLagGrowsWithoutAQuorum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitSame()
		old := c.Leader()
		c.Await("a leader without a lag", func() bool { return old.Lag() == 0 })
		for _, n := range others(c, old) {
			node := c.Node(n)
			c.Await("a follower with a small lag", func() bool { return node.Lag() < time.Second })
		}
		cut := time.Now()
		c.Net.Isolate(old.Bind)
		next := c.LeaderOf(others(c, old)...)
		c.Await("the old leader's lag", func() bool {
			lag := old.Lag()
			if lag > time.Since(cut)+time.Second {
				t.Errorf("a lag of %s, %s after the cut", lag, time.Since(cut))
			}
			return lag > time.Second
		})
		c.Await("the new leader's", func() bool { return next.Lag() == 0 })
		if lag := old.Lag(); lag < time.Second {
			t.Errorf("the lag fell to %s while the node is cut off", lag)
		}
		c.Net.Heal()
		c.Await("the old leader's lag to fall", func() bool { return old.Lag() < 500*time.Millisecond })
	})
}
