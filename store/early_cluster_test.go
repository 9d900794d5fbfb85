package store_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store/storetest"
)

// Followers write an entry while the leader does, so a write takes as long as one
// write of the log; it is acknowledged when the leader has written it, too.
func TestFollowersWriteWhileTheLeaderWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := newDisks()
		c := storetest.New(t, disks.edit)
		nodes := c.Three()
		c.AwaitSame()
		leader := c.Leader()
		elapse(t, time.Now().Add(time.Second)) // the pipelines are open
		disk := disks[leader.ID]
		disk.stall.Store(int64(3 * time.Second))
		before := leader.Metrics().LastIndex
		var all sync.WaitGroup
		var took time.Duration
		all.Go(func() {
			began := time.Now()
			if _, err := leader.Write(c.Context(), setGroup("web", 64)); err != nil {
				t.Error(err)
			}
			took = time.Since(began)
		})
		c.Await("the leader's write", func() bool { return disk.waiting.Load() == 1 })
		disk.stall.Store(0) // for later writes
		for _, n := range nodes {
			if n != leader {
				c.Await("the entry at "+n.ID, func() bool { return n.Metrics().LastIndex > before })
			}
		}
		if disk.waiting.Load() != 1 {
			t.Error("the followers write the entry after the leader")
		}
		all.Wait()
		if took < 3*time.Second {
			t.Errorf("a write was acknowledged after %v, before the leader had written it", took)
		}
		c.AwaitSame()
	})
}
