package store_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

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

// A deposed leader has an entry that was never committed. It does not apply it when the
// new leader's message has a commit index beyond the entries that both have.
func TestFormerLeadersEntryIsNotCommitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitSame()
		old := c.Leader()
		elapse(t, time.Now().Add(time.Second)) // nothing else is under way
		for _, id := range others(c, old) {
			c.Net.Cut(old.Bind, storetest.BindOf(id))
			c.Net.Cut(storetest.BindOf(id), old.Bind)
		}
		last, term := old.Metrics().LastIndex, old.Term()
		if err := old.ProposeAsync(1, setGroup("tail", 64)); err != nil {
			t.Fatal(err)
		}
		next := c.LeaderOf(others(c, old)...)
		c.Await("its end", func() bool { return !old.IsLeader() })
		if got := old.Metrics().LastIndex; got != last+1 {
			t.Fatalf("the deposed leader has entries up to %d, want %d", got, last+1)
		}
		var resp raft.AppendEntriesResponse
		err := newUnknownPeer(t, c, old).AppendEntries(raft.ServerID(old.ID), raft.ServerAddress(old.Bind), &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(next.ID), Addr: []byte(next.Bind)},
			Term:      next.Term(), PrevLogEntry: last, PrevLogTerm: term, LeaderCommitIndex: last + 1,
		}, &resp)
		if err != nil || !resp.Success {
			t.Fatalf("%+v, %v", resp, err)
		}
		synctest.Wait()
		if old.State().Group("tail") != nil {
			t.Error("it has applied an entry that was never committed")
		}
		c.Net.Heal()
		c.AwaitSame()
	})
}
