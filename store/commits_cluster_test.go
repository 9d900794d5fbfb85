package store_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store/storetest"
)

// In an idle cluster followers apply a write right after the leader, and not with raft's
// next heartbeat 50 to 100 ms later.
func TestFollowersApplyACommitAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		nodes := c.Three()
		c.AwaitSame()
		leader := c.Leader()
		late := 0
		for i := range 15 {
			elapse(t, time.Now().Add(300*time.Millisecond)) // nothing else is under way
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
			if took := time.Since(began); took > 0 {
				late++
				t.Logf("followers apply write %d %v after the leader", i, took)
			}
		}
		if late > 5 { // a message that is under way may take the place of the announcement
			t.Errorf("followers apply %d of 15 writes late", late)
		}
	})
}
