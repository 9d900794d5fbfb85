package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// In an idle cluster followers apply a write right after the leader, and not with raft's
// next heartbeat 50 to 100 ms later.
func TestFollowersApplyACommitAtOnce(t *testing.T) {
	c := storetest.New(t, func(cfg *store.Config) { cfg.ElectionTimeout = 2 * time.Second })
	nodes := c.Three()
	leader := c.Leader()
	var took []time.Duration
	for i := range 15 {
		r, err := leader.Write(c.Context(), register("web", fmt.Sprint(i), time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for _, n := range nodes {
			if _, err := n.Machine().WaitIndex(c.Context(), r.Index); err != nil {
				t.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("all nodes have it after %v (median), %v (worst)", took[len(took)/2], took[len(took)-1])
	// On a busy machine most are late. By raft's heartbeat all are.
	if quick := took[len(took)/5]; quick > 35*time.Millisecond {
		t.Errorf("followers apply a write %v after the leader", quick)
	}
}
