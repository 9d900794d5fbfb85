package store_test

import (
	"testing"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// leading makes the node with that id lead.
func leading(t *testing.T, c *storetest.Cluster, id string) *storetest.Node {
	t.Helper()
	if first := c.Leader(); first.ID != id {
		if err := first.Transfer(c.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	return c.LeaderOf(id)
}

// A node that was away while the others changed the configuration is needed for
// the majority, and does not know the only node that can lead.
func TestNodeThatWasAwayElectsOneItDoesNotKnow(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	c.Three()
	n1 := leading(t, c, "n1")
	c.AwaitKnown()
	c.Node("n3").Kill()
	c.Start("n4", store.Formation{Peers: binds("n1", "n2"), JoinTimeout: storetest.Patience})
	c.AwaitVoters("n1", "n2", "n3", "n4")
	if err := n1.RemoveNode(c.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	c.Node("n2").Kill()
	n1.Kill()
	c.Start("n3", store.Formation{})
	c.LeaderOf("n4")
	c.Write(register("web", "a", time.Minute))
	c.AwaitVoters("n1", "n3", "n4")
	c.AwaitSame()
}
