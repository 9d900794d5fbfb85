package store_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// A valid snapshot of the current term that arrives late removes no entries after it.
func TestLateSnapshotRemovesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame()
		leader, n := c.Leader(), follower(c)
		var state bytes.Buffer
		if err := leader.WriteState(c.Context(), 0, &state); err != nil {
			t.Fatal(err)
		}
		at, term := leader.State().Index(), leader.Term()
		for i := range 9 {
			c.Write(register("web", fmt.Sprint("m", i), time.Minute))
		}
		c.AwaitSame()
		first, last := n.LogRange()

		configuration := raft.Configuration{Servers: leader.Status().Configuration}
		var resp raft.InstallSnapshotResponse
		if err := newUnknownPeer(t, c, n).InstallSnapshot(raft.ServerID(n.ID), raft.ServerAddress(n.Bind), &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: 3, ID: []byte(leader.ID), Addr: []byte(leader.Bind)},
			SnapshotVersion: raft.SnapshotVersionMax, Term: term, LastLogIndex: at, LastLogTerm: term,
			Configuration: raft.EncodeConfiguration(configuration), ConfigurationIndex: 1, Size: int64(state.Len()),
		}, &resp, &state); err != nil || !resp.Success || resp.Term != term {
			t.Errorf("answered %+v, %v", resp, err)
		}
		if f, l := n.LogRange(); f != first || l < last {
			t.Errorf("the log went from %d to %d before, and now from %d to %d", first, last, f, l)
		}
		c.Write(register("web", "z", time.Minute))
		c.AwaitSame()
		n.Stop()
		c.AwaitReady(c.Start(n.ID, store.Formation{}))
		c.AwaitSame()
	})
}
