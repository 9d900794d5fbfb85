package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// deadAfter is how long the voters of these tests are unreachable before they are removed.
const deadAfter = 10 * time.Second

// checkSlack is how much later than due a removal may be.
const checkSlack = 3 * time.Second

// removals are the removals that leaders did by themselves.
type removals struct {
	mu  sync.Mutex // guards ids
	ids []string
}

func (r *removals) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

// removing configures nodes to remove dead voters.
func (r *removals) removing(cfg *store.Config) {
	cfg.RemoveDeadAfter = deadAfter
	cfg.Removed = func(id string, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil {
			r.ids = append(r.ids, id)
		}
	}
}

// lives lets virtual time pass until a time since start, and checks the removals then.
func (r *removals) lives(t *testing.T, start time.Time, until time.Duration, want ...string) {
	t.Helper()
	time.Sleep(time.Until(start.Add(until))) // virtual
	if got := r.list(); !slices.Equal(got, want) {
		t.Errorf("after %s removed %v, want %v", until, got, want)
	}
}

// followers are the nodes that do not lead.
func followers(c *storetest.Cluster) (nodes []*storetest.Node) {
	for _, id := range others(c, c.Leader()) {
		nodes = append(nodes, c.Node(id))
	}
	return nodes
}

// A voter that is unreachable for the time is removed, while enough are left. Until then
// the leader says what will happen. A removed node that comes back is told so.
func TestDeadVoterIsRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		c.Together(5)
		c.AwaitKnown()
		leader, down := c.Leader(), followers(c)
		start := time.Now()
		down[0].Kill()
		r.lives(t, start, deadAfter/2)
		plan := leader.DeadVoters()
		if len(plan) != 1 || plan[0].ID != down[0].ID || plan[0].Kept != "" || plan[0].RemovedIn < deadAfter/2-time.Second || plan[0].RemovedIn > deadAfter/2+time.Second || plan[0].Unreachable < deadAfter/2-2*time.Second {
			t.Errorf("%+v", plan)
		}
		if got := down[1].DeadVoters(); got != nil {
			t.Errorf("a follower plans %+v", got)
		}
		r.lives(t, start, deadAfter-time.Second)
		r.lives(t, start, deadAfter+checkSlack, down[0].ID)
		c.AwaitVoters(append(others(c, leader), leader.ID)...)
		if leader.State().Node(down[0].ID) != nil || leader.Metrics().DeadRemoved != 1 || len(leader.DeadVoters()) > 0 {
			t.Errorf("the leader has %+v, removed %d, plans %+v", leader.State().Node(down[0].ID), leader.Metrics().DeadRemoved, leader.DeadVoters())
		}

		start = time.Now()
		down[1].Kill() // three are left
		r.lives(t, start, deadAfter+checkSlack, down[0].ID, down[1].ID)
		down[2].Kill() // two would be
		r.lives(t, start, 4*deadAfter, down[0].ID, down[1].ID)
		if plan := leader.DeadVoters(); len(plan) != 1 || !strings.Contains(plan[0].Kept, "-min-voters is 3") {
			t.Errorf("%+v", plan)
		}

		back := c.Start(down[0].ID, store.Formation{Peers: binds("n1", "n2", "n3", "n4", "n5")})
		awaitFailed(t, c, back)
		if err := back.Failure(); err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
			t.Errorf("it ends with %v", err)
		}
		wiped := wipeDown(t, back)
		c.Start(wiped, store.Formation{Peers: binds("n1", "n2", "n3", "n4", "n5"), JoinTimeout: storetest.Patience})
		c.Await("its vote", func() bool { return slices.Contains(storetest.Voters(c.Leader().Store), wiped) })
	})
}

func TestNobodyIsRemovedByDefault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Together(5)
		leader := c.Leader()
		followers(c)[0].Kill()
		time.Sleep(time.Minute)
		if got := storetest.Voters(leader.Store); len(got) != 5 || leader.DeadVoters() != nil {
			t.Errorf("voters %v, planned %v", got, leader.DeadVoters())
		}
	})
}

// A voter that is reached again gets the whole time.
func TestReturningVoterIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		c.Together(5)
		n := followers(c)[0]
		start := time.Now()
		c.Net.Isolate(n.Bind)
		r.lives(t, start, deadAfter*3/4)
		c.Net.Heal()
		r.lives(t, start, deadAfter)
		c.Net.Isolate(n.Bind)
		r.lives(t, start, deadAfter*2-time.Second)
		r.lives(t, start, deadAfter*2+checkSlack, n.ID)
	})
}

func TestNewLeaderCountsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		c.Together(5)
		down := followers(c)
		start := time.Now()
		down[0].Kill()
		r.lives(t, start, deadAfter*3/4)
		former := c.Leader()
		if len(former.DeadVoters()) != 1 {
			t.Errorf("the leader plans %+v", former.DeadVoters())
		}
		if err := former.Transfer(c.Context(), down[1].ID); err != nil {
			t.Fatal(err)
		}
		leader := c.LeaderOf(down[1].ID)
		start = time.Now()
		c.Await("the end of the former leader's plan", func() bool { return former.DeadVoters() == nil })
		r.lives(t, start, deadAfter-time.Second)
		if former.DeadVoters() != nil || len(leader.DeadVoters()) != 1 {
			t.Errorf("the former leader plans %+v, the leader %+v", former.DeadVoters(), leader.DeadVoters())
		}
		r.lives(t, start, deadAfter+checkSlack, down[0].ID)
	})
}

// Dead voters are removed one at a time, when all have been dead for the time.
func TestDeadVotersAreRemovedOneByOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		c.Together(5)
		down := followers(c)
		down[0].Kill()
		<-time.After(deadAfter / 2)
		start := time.Now()
		down[1].Kill()
		r.lives(t, start, deadAfter-time.Second)
		r.lives(t, start, deadAfter+checkSlack, down[0].ID)
		r.lives(t, start, 2*deadAfter-time.Second, down[0].ID)
		r.lives(t, start, 2*(deadAfter+checkSlack), down[0].ID, down[1].ID)
	})
}

// faulty makes the calls for the applied index of some nodes fail, or answer another one.
type faulty struct {
	store.Peers
	applied func(ctx context.Context, id string) (index uint64, err error, faulty bool)
}

func (f faulty) Applied(ctx context.Context, node store.Target) (uint64, error) {
	if index, err, is := f.applied(ctx, node.ID); is {
		return index, err
	}
	return f.Peers.Applied(ctx, node)
}

// A voter that answers calls is not dead, nor is one that acknowledges heartbeats.
func TestVoterThatIsReachedInOneWay(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string]bool{"calls": true, "heartbeats": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r removals
				c := storetest.New(t, r.removing, slowElections) // the leader stays
				var mu sync.Mutex
				var cut string
				edit := func(cfg *store.Config) {
					peers := c.UncutPeers(cfg.BindAdvertise)
					cfg.Peers = faulty{peers, func(_ context.Context, id string) (uint64, error, bool) {
						mu.Lock()
						defer mu.Unlock()
						return 0, errors.New("cut"), !calls && id == cut
					}}
				}
				c.Together(5, edit)
				n := followers(c)[0]
				start := time.Now()
				mu.Lock()
				cut = n.ID
				mu.Unlock()
				if calls {
					c.Net.Isolate(n.Bind)
				}
				r.lives(t, start, 3*deadAfter)
				if !slices.Contains(storetest.Voters(c.Leader().Store), n.ID) {
					t.Error("it is no voter")
				}
			})
		})
	}
}

// Nobody is removed while another voter is behind, or does not answer and is not dead.
func TestVoterIsKeptWhileAnotherIsNotHealthy(t *testing.T) {
	t.Parallel()
	for problem, answer := range map[string]error{"is behind": nil, "answers heartbeats only": errors.New("cut")} {
		t.Run(problem, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r removals
				c := storetest.New(t, r.removing)
				var mu sync.Mutex
				var bad string
				c.Together(5, func(cfg *store.Config) {
					cfg.Peers = faulty{c.Peers(cfg.BindAdvertise), func(_ context.Context, id string) (uint64, error, bool) {
						mu.Lock()
						defer mu.Unlock()
						return 0, answer, id == bad
					}}
				})
				set := func(id string) {
					mu.Lock()
					defer mu.Unlock()
					bad = id
				}
				down := followers(c)
				set(down[1].ID)
				start := time.Now()
				down[0].Kill()
				r.lives(t, start, 2*deadAfter)
				if plan := c.Leader().DeadVoters(); len(plan) != 1 || plan[0].ID != down[0].ID || plan[0].Kept != down[1].ID+" "+problem {
					t.Errorf("%+v", plan)
				}
				set("")
				r.lives(t, start, 2*deadAfter+checkSlack, down[0].ID)
			})
		})
	}
}

// A voter that applies entries a moment after the others is not behind, however many are
// written.
func TestDeadVoterIsRemovedUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		var slow string
		var writes atomic.Bool
		var applied atomic.Uint64 // half a second ago
		c.Together(5, func(cfg *store.Config) {
			cfg.Peers = faulty{c.Peers(cfg.BindAdvertise), func(_ context.Context, id string) (uint64, error, bool) {
				return applied.Load(), nil, writes.Load() && id == slow
			}}
		})
		down := followers(c)
		slow = down[1].ID
		var load sync.WaitGroup
		load.Go(func() {
			var indexes []uint64
			for range 150 { // for 15 seconds
				indexes = append(indexes, c.Write(register("web", "a", time.Minute)).Index)
				applied.Store(indexes[max(0, len(indexes)-5)])
				writes.Store(true)
				time.Sleep(100 * time.Millisecond) // virtual
			}
		})
		start := time.Now()
		down[0].Kill()
		r.lives(t, start, deadAfter+checkSlack, down[0].ID)
		load.Wait()
	})
}

// A node without a vote counts for no majority, and is not removed.
func TestDeadReadReplicaIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		c.Together(5)
		n := c.Start("n6", store.Formation{Peers: binds("n1", "n2", "n3"), JoinTimeout: storetest.Patience}, func(cfg *store.Config) { cfg.Nonvoter = true })
		c.AwaitReady(n)
		start := time.Now()
		n.Kill()
		r.lives(t, start, 3*deadAfter)
		if leader := c.Leader(); leader.State().Node("n6") == nil || len(leader.DeadVoters()) > 0 {
			t.Errorf("the leader has %+v, plans %+v", leader.State().Node("n6"), leader.DeadVoters())
		}
	})
}

// A leader whose process was paused counts from then on.
func TestPausedLeaderCountsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		paused := make(chan struct{}) // its only value pauses a check
		c.Together(5, func(cfg *store.Config) {
			cfg.Peers = faulty{c.Peers(cfg.BindAdvertise), func(context.Context, string) (uint64, error, bool) {
				select {
				case <-paused:
					time.Sleep(deadAfter)
				default:
				}
				return 0, nil, false
			}}
		})
		down := followers(c)
		start := time.Now()
		down[0].Kill()
		r.lives(t, start, deadAfter/2)
		paused <- struct{}{}
		start = time.Now()
		r.lives(t, start, 2*deadAfter-time.Second)
		r.lives(t, start, 2*deadAfter+checkSlack, down[0].ID)
	})
}

// The rules are checked again when no other change of members is under way.
func TestVoterReturnsBeforeItsRemoval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		c.Together(5)
		n, leader := followers(c)[0], c.Leader()
		start := time.Now()
		c.Net.Isolate(n.Bind)
		r.lives(t, start, deadAfter-time.Second)
		unlock := leader.LockMembership(c.Context())
		r.lives(t, start, deadAfter+checkSlack)
		c.Net.Heal()
		r.lives(t, start, deadAfter+2*checkSlack)
		unlock()
		r.lives(t, start, 3*deadAfter)
	})
}

// A removal that changed raft's configuration and not the state, as of a leader that
// ended in between, ends.
func TestUnfinishedRemovalEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r removals
		c := storetest.New(t, r.removing)
		c.Three()
		leader := c.Leader()
		gone := leader.Self()
		gone.ID, gone.Bind, gone.Incarnation = "n9", "n9:7370", "gone"
		unlock := leader.LockMembership(c.Context()) // as a removal does that is under way
		if err := leader.RecordNode(c.Context(), gone); err != nil {
			t.Fatal(err)
		}
		store.After(checkSlack)
		if leader.State().Node("n9") == nil {
			t.Error("it was ended while another change of members was under way")
		}
		unlock()
		c.Await("its end", func() bool { return leader.State().Node("n9") == nil })
	})
}
