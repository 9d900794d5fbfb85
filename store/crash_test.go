package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// crashPoint is a point of a write at which a node crashes.
type crashPoint struct {
	name  string
	when  moment
	entry raft.LogType
	skip  int
	batch int
	keep  int
	reach int  // how many other nodes get the entries; the rest is cut off before
	held  bool // those have not written them
	// during is what is under way.
	during string
	// target: the write is that of the node that leadership is transferred to.
	target bool
	// old: the node that handed leadership over crashes, not the one that writes.
	old bool
	// deletes: the node crashes again when it deletes the entries that only it has, or
	// the new leader does.
	deletes moment
}

const (
	everyone = 9  // all others
	anyone   = 10 // nobody is cut off, and nobody has to have them
)

// crashPoints are all that a leader's write of entries goes through, and changes of the
// leader and the members around it.
var crashPoints = []crashPoint{
	{name: "before anything is sent", when: beforeWrite},
	{name: "sent to one follower", when: beforeWrite, reach: 1, held: true},
	{name: "sent to both followers", when: beforeWrite, reach: everyone, held: true},
	{name: "written by one follower", when: beforeWrite, reach: 1},
	{name: "written by both followers", when: beforeWrite, reach: everyone},
	{name: "written in part here", when: beforeWrite, batch: 2, keep: 1},
	{name: "written in part here and by one follower", when: beforeWrite, batch: 2, keep: 1, reach: 1},
	{name: "written in part here and by both followers", when: beforeWrite, batch: 2, keep: 1, reach: everyone},
	{name: "written here alone", when: afterWrite},
	{name: "written here and sent to both followers", when: afterWrite, reach: everyone, held: true},
	{name: "written here and by one follower", when: afterWrite, reach: 1},
	{name: "written by all", when: afterWrite, reach: everyone},
	{name: "committed with one follower", when: beforeApply, reach: 1},
	{name: "committed with both followers", when: beforeApply, reach: everyone},
	{name: "applied with one follower", when: afterApply, reach: 1},
	{name: "applied with both followers", when: afterApply, reach: everyone},
	{name: "answered with one follower", when: afterAnswer, reach: 1},
	{name: "answered with both followers", when: afterAnswer, reach: everyone},

	{name: "a new member, before the write", during: "join", entry: raft.LogConfiguration, when: beforeWrite, reach: anyone},
	{name: "a new member, written here alone", during: "join", entry: raft.LogConfiguration, when: afterWrite, reach: anyone},
	{name: "a new member, committed", during: "join", entry: raft.LogConfiguration, when: beforeApply, reach: everyone},
	{name: "a new voter, before the write", during: "join", entry: raft.LogConfiguration, skip: 1, when: beforeWrite, reach: anyone},
	{name: "a new voter, written here alone", during: "join", entry: raft.LogConfiguration, skip: 1, when: afterWrite, reach: anyone},
	{name: "a new voter, committed", during: "join", entry: raft.LogConfiguration, skip: 1, when: beforeApply, reach: everyone},
	{name: "a removal, before the write", during: "removal", entry: raft.LogConfiguration, when: beforeWrite, reach: anyone},
	{name: "a removal, written here alone", during: "removal", entry: raft.LogConfiguration, when: afterWrite, reach: anyone},
	{name: "a removal, committed", during: "removal", entry: raft.LogConfiguration, when: beforeApply, reach: everyone},

	{name: "a transfer waits for a write by both followers", during: "transfer", when: beforeWrite, reach: everyone},
	{name: "a transfer waits for a write here alone", during: "transfer", when: afterWrite},
	{name: "a transfer, before the next leader's write", during: "transfer", target: true, entry: raft.LogNoop, when: beforeWrite, reach: anyone},
	{name: "a transfer, written by the next leader alone", during: "transfer", target: true, entry: raft.LogNoop, when: afterWrite, reach: anyone},
	{name: "a transfer, the next leader's command written by both", during: "transfer", target: true, when: beforeWrite, reach: everyone},
	{name: "a transfer, the last leader ends", during: "transfer", target: true, old: true, entry: raft.LogNoop, when: beforeWrite, reach: anyone},

	{name: "before the deletion of a suffix", when: afterWrite, deletes: beforeDelete},
	{name: "after the deletion of a suffix", when: afterWrite, deletes: afterDelete},
	{name: "the next leader ends during the deletion of a suffix", when: afterWrite, deletes: duringDelete},
}

// aftermath is what happens after a crash.
type aftermath string

const (
	othersGoOn  aftermath = "the others go on"
	holderAway  aftermath = "a node that may have the entries is away"
	allCrash    aftermath = "all others crash too"
	pauseBefore           = 100 * time.Millisecond // work between two steps
)

var aftermaths = []aftermath{othersGoOn, holderAway, allCrash}

// A node that crashes at any point of a write comes back with what its disk had. Nothing
// that was acknowledged is lost, each request takes effect once, reads are linearizable,
// and all nodes have the same state.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	for i, p := range crashPoints {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			rng := seed.Rand(t)
			rng = rand.New(rand.NewPCG(rng.Uint64(), uint64(i))) // not the same for all points
			if testing.Short() && rng.IntN(3) > 0 {
				t.Skip("a third of the points, as with the race detector")
			}
			synctest.Test(t, func(t *testing.T) {
				s := newCrashSim(t, rng)
				chosen := aftermaths
				if p.deletes != "" {
					chosen = []aftermath{othersGoOn}
				} else if testing.Short() {
					chosen = aftermaths[rng.IntN(len(aftermaths)):][:1]
				}
				for _, after := range chosen {
					s.round(p, after)
				}
				s.check()
			})
		})
	}
}

// Crashes at points of any kind follow each other.
func TestRandomCrashes(t *testing.T) {
	t.Parallel()
	runs, rounds := 2, 5
	if storetest.Long() {
		runs, rounds = 6, 8
	}
	for i := range runs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rng := seed.Rand(t)
			rng = rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
			synctest.Test(t, func(t *testing.T) {
				s := newCrashSim(t, rng)
				for range rounds {
					store.After(time.Duration(rng.IntN(100)) * time.Millisecond)
					s.round(randomPoint(rng), aftermaths[rng.IntN(len(aftermaths))])
				}
				s.check()
			})
		})
	}
}

func randomPoint(rng *rand.Rand) crashPoint {
	if rng.IntN(3) == 0 {
		return crashPoints[rng.IntN(len(crashPoints))]
	}
	p := crashPoint{when: []moment{beforeWrite, afterWrite, beforeApply, afterApply}[rng.IntN(4)], reach: rng.IntN(3), batch: rng.IntN(3)}
	switch p.when {
	case beforeWrite:
		p.keep = rng.IntN(max(p.batch, 1))
		p.held = rng.IntN(2) == 0
	case beforeApply, afterApply:
		p.reach = max(p.reach, 1) // else it is not committed
	}
	p.name = fmt.Sprintf("%+v", p)
	return p
}

// The simulation finds a leader that acknowledges what its disk then loses.
func TestCrashSimulationFindsALostWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newCrashSim(t, seed.Rand(t))
		s.unsynced = true
		for range attempts {
			if s.attempt(crashPoint{when: afterAnswer, reach: 1}, holderAway, func() {
				ops := s.finish(t)
				t.Log("members whose operations no order explains:", notLinearizable(ops))
				if len(lost(s.c.Leader(), ops)) == 0 {
					t.Error("the loss of an acknowledged write was not found")
				}
			}) {
				return
			}
		}
		t.Error("never reached")
	})
}

// attempts bounds how often a point is tried, which the callers may not reach at once.
const attempts = 30

// round lets a node crash at the point, and waits until all is well again.
func (s *crashSim) round(p crashPoint, after aftermath) {
	s.t.Helper()
	s.t.Logf("round: %s; %s", p.name, after)
	for range attempts {
		if s.attempt(p, after, nil) {
			return
		}
	}
	s.t.Fatalf("never reached: %s", p.name)
}

// attempt returns false if the point was not reached. away, if there is one, is called
// while the holder of the entries is away, and is the end.
func (s *crashSim) attempt(p crashPoint, after aftermath, away func()) bool {
	extra := ""
	if p.during == "removal" {
		extra = s.open()
		s.join(s.c.Context(), extra)
	}
	leader := s.c.Leader()
	others := slices.DeleteFunc(s.c.Nodes(), func(n *storetest.Node) bool { return n.ID == leader.ID })
	s.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	plan := &crashPlan{at: leader.ID, victim: leader.ID, when: p.when, entry: p.entry, skip: p.skip, batch: p.batch, keep: p.keep, held: p.held}
	if p.target {
		plan.at, plan.victim = others[0].ID, others[0].ID
		if p.old {
			plan.victim = leader.ID
		}
	}
	if p.when == afterAnswer {
		plan.onBegin = func() {
			store.After(20 * time.Millisecond)
			s.execute(plan)
		}
	}
	limit := 3 * time.Second
	if p.reach < len(others) {
		limit = storetest.ElectionTimeout / 2
		for _, n := range others[p.reach:] {
			s.c.Net.Cut(leader.Bind, n.Bind)
		}
	}
	if p.reach <= everyone {
		for _, n := range append([]*storetest.Node{leader}, others[:min(p.reach, len(others))]...) {
			if n.ID != plan.at {
				plan.reached = append(plan.reached, n.ID)
			}
		}
	}

	ctx, cancel := context.WithCancel(s.c.Context())
	defer cancel()
	var all sync.WaitGroup
	start := func() {}
	transfer := func() { _ = leader.Transfer(ctx, others[0].ID) } // it may fail: a node crashes
	switch p.during {
	case "join":
		extra = s.open()
		start = func() { s.join(ctx, extra) }
	case "removal":
		start = func() { _ = leader.RemoveNode(ctx, extra) } // as above; see leave
	case "transfer":
		if p.target {
			start = transfer
		} else {
			plan.onBegin = func() { all.Go(transfer) }
		}
	}
	happened := s.arm(plan, limit, func() { all.Go(start) })
	if p.during == "transfer" {
		cancel() // raft, once it has stopped, may never answer a request
	}
	if happened {
		s.recover(plan, after, p.deletes, away)
	} else {
		s.c.Net.Heal()
	}
	if away != nil {
		return happened
	}
	all.Wait()
	if extra != "" {
		s.leave(extra)
	}
	for _, n := range s.c.Nodes() {
		s.c.AwaitReady(n)
	}
	s.c.Leader()
	return happened
}

// recover brings the cluster back after a crash.
func (s *crashSim) recover(p *crashPlan, after aftermath, deletes moment, away func()) {
	// A node that is joining may have no state to come back with.
	rest := slices.DeleteFunc(s.c.Nodes(), func(n *storetest.Node) bool { return !slices.Contains(founders, n.ID) })
	victim, holder := s.c.Node(p.victim), rest[s.rng.IntN(len(rest))]
	if len(p.reached) > 0 && p.reached[0] != p.victim {
		holder = s.c.Node(p.reached[0])
	}
	switch after {
	case othersGoOn:
		s.disarm()
		s.closeCrashed(victim)
		s.c.Net.Heal()
		if s.rng.IntN(2) == 0 {
			s.c.Net.Isolate(victim.Bind) // without power: nothing refuses connections
		}
		leader := s.c.Leader()
		store.After(pauseBefore)
		s.c.Net.Heal(victim.Bind)
		if deletes != "" {
			s.crashInDeletion(victim.ID, leader.ID, deletes)
			return
		}
		s.restart(victim.ID)
	case holderAway:
		s.c.Net.Isolate(holder.Bind)
		s.disarm()
		s.closeCrashed(victim)
		s.c.Net.Heal(holder.Bind, victim.Bind)
		s.restart(victim.ID)
		s.c.Leader()
		store.After(pauseBefore)
		if away != nil {
			away()
		}
		s.c.Net.Heal()
	case allCrash:
		for _, n := range rest {
			s.crash(n.ID, "")
		}
		s.disarm()
		var all sync.WaitGroup
		for _, n := range append(rest, victim) {
			all.Go(func() { s.closeCrashed(n) })
		}
		all.Wait()
		for _, n := range append(rest, victim) {
			s.restart(n.ID)
		}
		s.c.Net.Heal()
	}
}

// crashInDeletion lets a node come back that alone has the last entries of its log, and
// crash while it deletes them, or its new leader.
func (s *crashSim) crashInDeletion(id, leader string, when moment) {
	p := &crashPlan{at: id, victim: id, when: when}
	if when == duringDelete {
		p.victim, p.when = leader, beforeDelete
	}
	if !s.arm(p, 5*time.Second, func() { s.restart(id) }) {
		s.t.Fatal("no suffix was deleted")
	}
	s.recover(p, othersGoOn, "", nil)
}

// open opens a node that is no member.
func (s *crashSim) open() (id string) {
	s.opened++
	id = fmt.Sprint("n", 3+s.opened)
	s.watch(s.c.Open(id))
	return id
}

func (s *crashSim) join(ctx context.Context, id string) {
	f := store.Formation{Peers: binds(founders...), JoinTimeout: storetest.Patience}
	if err := s.c.Node(id).Store.Form(ctx, f); err != nil {
		s.t.Errorf("%s does not join: %v", id, err)
	}
}

// leave removes a node and stops it.
func (s *crashSim) leave(id string) {
	s.c.AwaitReady(s.c.Node(id))
	s.c.Await("the removal", func() bool {
		err := s.c.Leader().RemoveNode(s.c.Context(), id)
		return err == nil || errors.Is(err, store.ErrUnknownNode) // removed before, with an unknown outcome
	})
	s.c.Node(id).Kill()
}

// check ends the callers, and judges.
func (s *crashSim) check() {
	ops := s.finish(s.t)
	outcomes := make(map[string]int)
	for _, op := range ops {
		outcomes[op.Outcome]++
	}
	s.t.Logf("outcomes of operations: %v", outcomes)
	s.c.AwaitSame()
	for _, n := range s.c.Nodes() {
		if lost := lost(n, ops); len(lost) > 0 {
			s.t.Errorf("%s lacks what was acknowledged: %s", n.ID, strings.Join(lost, "; "))
		}
	}
	if ids := notLinearizable(ops); len(ids) > 0 {
		s.t.Errorf("no order explains the operations on %v", ids)
	}
}
