package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
	"github.com/werbenhu/registry/store/storetest/seed"
)

func TestAcknowledgedWritesSurviveLeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		rounds := 4
		if !storetest.Long() {
			rounds = 1
		}
		var acked []string
		for round := range rounds {
			for i := range 20 {
				id := fmt.Sprintf("m%d-%d", round, i)
				c.Write(register("web", id, time.Minute))
				acked = append(acked, id)
			}
			old := c.Leader()
			old.Kill()
			c.Leader()
			c.Start(old.ID, store.Formation{})
		}
		c.AwaitSame()
		for _, id := range acked {
			if member(c.Leader().State(), "web", id) == nil {
				t.Errorf("%s was acknowledged and is lost", id)
			}
		}
	})
}

func TestTransferAndHandOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		old := c.Leader()
		to := follower(c)
		if err := old.Transfer(c.Context(), "nobody"); !errors.Is(err, store.ErrUnknownNode) {
			t.Errorf("to nobody: %v", err)
		}
		if err := old.Transfer(c.Context(), old.ID); err != nil {
			t.Errorf("to itself: %v", err)
		}
		if err := to.Transfer(c.Context(), ""); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("by a follower: %v", err)
		}
		if err := old.Transfer(c.Context(), to.ID); err != nil {
			t.Fatal(err)
		}
		next := c.LeaderOf(to.ID)
		c.Write(setGroup("web", 64))

		// After the hand-over another node leads while this one still runs.
		term := next.Term()
		next.HandOver()
		last := c.LeaderOf(others(c, next)...)
		if last.Term() != term+1 {
			t.Errorf("term went from %d to %d", term, last.Term())
		}
		c.Await("the old leader to step down", func() bool { return !next.IsLeader() })
		next.HandOver() // does nothing: it does not lead
		next.Stop()
		if _, err := last.Write(c.Context(), setGroup("web", 128)); err != nil {
			t.Error(err)
		}
	})
}

// others are the ids of the nodes that are up, except one.
func others(c *storetest.Cluster, but *storetest.Node) (ids []string) {
	for _, n := range c.Nodes() {
		if n.ID != but.ID {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// Writes that are in flight when the leader is killed: an acknowledged one has taken
// effect, one with ErrNotLeader or ErrBusy has not, and the others are unknown.
func TestWritesDuringALeaderCrash(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader := c.Leader()
		const writers, each = 8, 200
		type outcome struct {
			id  string
			err error
		}
		outcomes := make([][]outcome, writers)
		var begun sync.WaitGroup
		var all sync.WaitGroup
		for w := range writers {
			begun.Add(1)
			all.Go(func() {
				for i := range each {
					id := fmt.Sprintf("m%d-%d", w, i)
					_, err := leader.Write(t.Context(), register("web", id, time.Minute))
					outcomes[w] = append(outcomes[w], outcome{id, err})
					if i == 20 {
						begun.Done()
					}
					if errors.Is(err, store.ErrNotLeader) && i > 20 {
						return
					}
				}
			})
		}
		begun.Wait()
		leader.Kill()
		all.Wait()
		next := c.Leader()
		c.Start(leader.ID, store.Formation{})
		c.AwaitSame()
		acked, unknown := 0, 0
		for _, o := range slices.Concat(outcomes...) {
			there := member(next.State(), "web", o.id) != nil
			switch {
			case o.err == nil:
				acked++
				if !there {
					t.Errorf("%s was acknowledged and is lost", o.id)
				}
			case errors.Is(o.err, store.ErrNotLeader), errors.Is(o.err, store.ErrBusy):
				if there {
					t.Errorf("%s returned %v and took effect", o.id, o.err)
				}
			case errors.Is(o.err, store.ErrOutcomeUnknown):
				unknown++
			default:
				t.Errorf("%s: %v", o.id, o.err)
			}
		}
		t.Logf("%d acknowledged, %d unknown", acked, unknown)
	})
}

// Random writes, with leaders that are killed, hand over or are cut off in between: in
// the end all nodes have the same state and rings.
func TestChurnWithLeaderChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := seed.Rand(t)
		c := storetest.New(t, func(cfg *store.Config) { cfg.SnapshotThreshold = 50 })
		c.Three()
		rounds := 6
		if !storetest.Long() {
			rounds = 2
		}
		for range rounds {
			leader := c.Leader()
			for range 60 {
				group, id := fmt.Sprint("g", r.IntN(3)), fmt.Sprint("m", r.IntN(20))
				cmd := register(group, id, time.Minute)
				cmd.GetRegister().Instance = binary.AppendUvarint(nil, r.Uint64()) // a fenced instance is refused
				if r.IntN(3) == 0 {
					cmd = deregister(group, id)
				}
				if r.IntN(10) == 0 {
					cmd = setGroup(group, 64<<r.IntN(3))
				}
				if _, err := leader.Write(t.Context(), cmd); err != nil {
					t.Logf("%s: %v", leader.ID, err)
					break
				}
			}
			switch r.IntN(4) {
			case 0:
				leader.Kill()
				c.Leader()
				c.Start(leader.ID, store.Formation{})
			case 1:
				leader.Stop()
				c.Leader()
				c.Start(leader.ID, store.Formation{})
			case 2:
				c.Net.Isolate(leader.Bind)
				c.LeaderOf(others(c, leader)...)
				c.Net.Heal()
			case 3:
				if err := leader.Snapshot(); err != nil {
					t.Log(err) // nothing new
				}
				_ = leader.Transfer(t.Context(), "") // best effort
			}
		}
		c.AwaitSame()
	})
}
