package e2e

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// TestDeadVoterIsRemoved: five nodes remove one that was killed, by themselves and under
// load, after they have said so. It is told when it comes back, and joins again with an
// empty directory.
func TestDeadVoterIsRemoved(t *testing.T) {
	t.Parallel()
	const after = 3 * time.Second
	c := startCluster(t, 5, "-remove-dead-after", after.String())
	leader, others := c.leader()
	asked, dead := others[0], others[1]
	c.without(dead)
	load := startResizeWriter(t, c.nodes, "busy")
	load.more(t)

	began := time.Now()
	dead.kill()
	var last *registrypb.Removal
	said := false // at times it says that a voter is behind, under load
	eventually(t, patience, "the removal", func() error {
		st, err := statusOf(t, asked.addr)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(st.Nodes, func(n *registrypb.NodeStatus) bool { return n.Id == dead.id })
		if i < 0 {
			return nil
		}
		if r := st.Nodes[i].Removal; r != nil {
			last = r
			said = said || r.RemovedIn != nil && r.Kept == ""
		}
		return fmt.Errorf("%v", st.Nodes[i])
	})
	if took := time.Since(began); took < after || !said {
		t.Errorf("removed after %v, said before: %v", took, last)
	}
	t.Logf("removed after %v", ms(time.Since(began)))
	c.becomes(c.ids()...)
	load.more(t)
	st, err := statusOf(t, asked.addr)
	if err != nil {
		t.Fatal(err)
	}
	if st.Leader == leader.id { // else it is the log of another node
		leader.says("removed a dead voter", patience)
		leader.says("method=RemoveDead outcome=ok target_node="+dead.id, patience)
	}

	dead.start("-registries", asked.bind)
	dead.refused(4, "was removed from the cluster", "empty data directory")
	if err := os.RemoveAll(dead.dir); err != nil {
		t.Fatal(err)
	}
	dead.start("-registries", asked.bind)
	c.nodes = append(c.nodes, dead)
	c.becomes(c.ids()...)
	load.more(t)
	load.stop()
	<-load.ended
	c.settled(5)
	have := map[string]uint64{}
	for _, m := range membersOf(t, dead.addr, "busy") {
		have[m.Id] = m.CreatedIndex
	}
	for id, index := range load.acked {
		if have[id] != index {
			t.Errorf("%s was acknowledged at index %d, and is %d", id, index, have[id])
		}
	}
	t.Logf("%d registrations were acknowledged in %v", len(load.acked), ms(time.Since(began)))
}
