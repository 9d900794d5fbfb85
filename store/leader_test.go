package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// deposed returns a leader that is cut off and does not know it, and the one
// that the others elected.
func deposed(t *testing.T, edit ...func(*storetest.Cluster, *store.Config)) (c *storetest.Cluster, old, next *storetest.Node) {
	c = storetest.New(t, func(cfg *store.Config) {
		if cfg.ID == "n1" {
			slowElections(cfg)
			for _, f := range edit {
				f(c, cfg)
			}
		}
	})
	old = c.Three()[0]
	if first := c.Leader(); first.ID != old.ID {
		if err := first.Transfer(c.Context(), old.ID); err != nil {
			t.Fatal(err)
		}
	}
	c.LeaderOf(old.ID)
	c.Write(register("web", "a", time.Minute))
	c.AwaitSame()
	c.Net.Isolate(old.Bind)
	next = c.LeaderOf("n2", "n3")
	if !old.IsLeader() {
		t.Fatal("the old leader knows already")
	}
	return c, old, next
}

func TestDeposedLeaderAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	c, old, next := deposed(t)
	if _, err := next.Write(c.Context(), setGroup("web", 64)); err != nil {
		t.Fatal(err)
	}
	lease := old.State().Group("web").Member("a").LeaseID
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		if index, err := old.ReadIndex(ctx); err == nil {
			t.Errorf("read index %d", index)
		}
	})
	all.Go(func() {
		if _, _, err := old.Renew(ctx, []uint64{lease}); err == nil {
			t.Error("a renewal was acknowledged")
		}
	})
	all.Go(func() {
		if _, err := old.Write(ctx, setGroup("web", 128)); !errors.Is(err, store.ErrOutcomeUnknown) {
			t.Errorf("a write: %v, want ErrOutcomeUnknown", err)
		}
	})
	all.Wait()
	if !old.IsLeader() {
		t.Error("the old leader stepped down: the test shows nothing")
	}
	c.Net.Heal()
	c.AwaitSame()
	if k := old.State().Group("web").Params.VirtualNodes; k != 64 {
		t.Errorf("%d virtual nodes: what the deposed leader wrote has won", k)
	}
}

// The same when the old leader reaches the others to ask for their terms: they
// answer with a newer one.
func TestNewerTermIsNoConfirmation(t *testing.T) {
	t.Parallel()
	asked := &termCount{}
	c, old, _ := deposed(t, func(c *storetest.Cluster, cfg *store.Config) {
		asked.Peers = c.PeersBeside(cfg.BindAdvertise)
		cfg.Peers = asked
	})
	before := asked.n.Load()
	if index, err := old.ReadIndex(c.Context()); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("read index %d, %v, want ErrNotLeader", index, err)
	}
	if asked.n.Load() < before+2 {
		t.Error("the others were not asked: the test shows nothing")
	}
}

// The same when only the way to the old leader is cut: it is heard and hears
// nothing, so its heartbeats hold the others back until it steps down.
func TestHalfCutLeader(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	c.Three()
	old := c.Leader()
	for _, n := range c.Nodes() {
		c.Net.Cut(n.Bind, old.Bind)
	}
	next := c.LeaderOf(others(c, old)...)
	if _, err := next.Write(c.Context(), setGroup("web", 64)); err != nil {
		t.Error(err)
	}
	c.Await("the old leader to step down", func() bool { return !old.IsLeader() })
	c.Net.Heal()
	c.AwaitSame()
}

func TestAcknowledgedWritesSurviveLeaders(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	c.Three()
	rounds := 4
	if testing.Short() {
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
			t.Errorf("%s was acknowledged and is gone", id)
		}
	}
}

func TestTransferAndHandOver(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	c.Three()
	old := c.Leader()
	to := follower(c)
	if err := old.Transfer(c.Context(), "nobody"); !errors.Is(err, store.ErrMembership) {
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

	// Handed over, another leads while this one is still there.
	term := next.Term()
	next.HandOver()
	last := c.LeaderOf(others(c, next)...)
	if last.Term() != term+1 || next.IsLeader() {
		t.Errorf("term went from %d to %d, the old leader leads: %t", term, last.Term(), next.IsLeader())
	}
	next.HandOver() // nothing to hand over
	next.Stop()
	if _, err := last.Write(c.Context(), setGroup("web", 128)); err != nil {
		t.Error(err)
	}
}

// others are the ids of the nodes that are up, but for one.
func others(c *storetest.Cluster, but *storetest.Node) (ids []string) {
	for _, n := range c.Nodes() {
		if n.ID != but.ID {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// Writes that are under way when the leader dies: an acknowledged one is there
// afterwards, one that was surely not done is not, and of the others nothing
// is said but that they are unknown.
func TestWritesDuringALeadersDeath(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	c.Three()
	leader := c.Leader()
	const writers, each = 8, 200
	type outcome struct {
		id  string
		err error
	}
	outcomes := make([][]outcome, writers)
	var under sync.WaitGroup
	var all sync.WaitGroup
	for w := range writers {
		under.Add(1)
		all.Go(func() {
			for i := range each {
				id := fmt.Sprintf("m%d-%d", w, i)
				_, err := leader.Write(t.Context(), register("web", id, time.Minute))
				outcomes[w] = append(outcomes[w], outcome{id, err})
				if i == 20 {
					under.Done()
				}
				if errors.Is(err, store.ErrNotLeader) && i > 20 {
					return
				}
			}
		})
	}
	under.Wait()
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
				t.Errorf("%s was acknowledged and is gone", o.id)
			}
		case errors.Is(o.err, store.ErrNotLeader), errors.Is(o.err, store.ErrBusy):
			if there {
				t.Errorf("%s was answered %v and is there", o.id, o.err)
			}
		case errors.Is(o.err, store.ErrOutcomeUnknown):
			unknown++
		default:
			t.Errorf("%s: %v", o.id, o.err)
		}
	}
	t.Logf("%d acknowledged, %d unknown", acked, unknown)
}

// Random writes on whoever leads, with leaders that die, hand over or are cut
// off in between: in the end all nodes have the same state and the same rings.
func TestChurnWithLeaderChanges(t *testing.T) {
	t.Parallel()
	r := store.Random(t)
	c := storetest.New(t, func(cfg *store.Config) { cfg.SnapshotThreshold = 50 })
	c.Three()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		leader := c.Leader()
		for range 60 {
			group, id := fmt.Sprint("g", r.IntN(3)), fmt.Sprint("m", r.IntN(20))
			cmd := register(group, id, time.Minute)
			cmd.GetRegister().Instance = binary.AppendUvarint(nil, r.Uint64()) // one that is fenced may not come back
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
}

// termCount counts the questions for a term.
type termCount struct {
	store.Peers
	n atomic.Int32
}

func (p *termCount) Term(ctx context.Context, bind string) (uint64, error) {
	p.n.Add(1)
	return p.Peers.Term(ctx, bind)
}
