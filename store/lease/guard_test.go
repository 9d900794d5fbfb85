package lease

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// guardTable is a lease table with one group, whose members are removed when they are due.
type guardTable struct {
	*Table
	expired map[uint64]time.Duration // lease → when, since the start
	begin   time.Time
}

func newGuardTable(members int, ttl time.Duration) *guardTable {
	g := &guardTable{Table: New(nil), expired: map[uint64]time.Duration{}, begin: time.Now()}
	g.log = slog.New(slog.DiscardHandler)
	g.active = true
	for i := range members {
		g.Applied(&fsm.Update{Changes: []fsm.Change{{Group: "g", Next: &fsm.Member{ID: fmt.Sprint(i), LeaseID: uint64(i + 1), Epoch: 1, TTL: ttl}}}})
	}
	return g
}

// run lets virtual time pass. Members that are alive send three heartbeats per TTL, and
// members that are due are removed.
func (g *guardTable) run(d, ttl time.Duration, alive func(id uint64) bool) {
	members := uint64(len(g.byID) + len(g.expired))
	step := ttl / 300
	for tick := range int(d / step) {
		for id := uint64(tick%100 + 1); id <= members; id += 100 {
			if alive(id) {
				g.renew(id)
			}
		}
		after(step) // virtual: the test runs in a bubble
		for {
			due, _ := g.Due(1000)
			for _, e := range due {
				g.expired[e.LeaseId] = time.Since(g.begin)
				g.Applied(&fsm.Update{Changes: []fsm.Change{{Group: "g", Prev: &fsm.Member{ID: e.Id, LeaseID: e.LeaseId}}}})
			}
			if len(due) < 1000 {
				break
			}
		}
	}
}

func (g *guardTable) first() time.Duration {
	first := time.Hour
	for _, at := range g.expired {
		first = min(first, at)
	}
	return first
}

func (g *guardTable) last() time.Duration {
	last := time.Duration(0)
	for _, at := range g.expired {
		last = max(last, at)
	}
	return last
}

const guardTTL = 3 * time.Second

func TestGuardDoesNotDelayAFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(100, guardTTL)
		g.run(3*guardTTL, guardTTL, func(id uint64) bool { return id > 3 })
		if len(g.expired) != 3 || g.last() > guardTTL+guardTTL/50 {
			t.Errorf("%d members expired, the last after %s", len(g.expired), g.last())
		}
	})
}

func TestGuardWaitsForOthersAThirdOfATTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(100, guardTTL)
		g.run(3*guardTTL, guardTTL, func(id uint64) bool { return id > 20 })
		if limit := guardTTL + guardTTL/guardWait + guardTTL/50; len(g.expired) != 20 || g.last() > limit {
			t.Errorf("%d members expired, the last after %s, want 20 within %s", len(g.expired), g.last(), limit)
		}
	})
}

func TestGuardHoldsAMassLossForOneMoreTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(1000, guardTTL)
		dead := func(id uint64) bool { return id > 400 }
		g.run(guardTTL+guardTTL/2, guardTTL, dead)
		if len(g.expired) > 20 {
			t.Fatalf("%d of 1,000 members expired before the guard acted", len(g.expired))
		}
		g.run(3*guardTTL, guardTTL, dead)
		// 100 members a second, after the hold.
		if limit := 2*guardTTL + guardTTL/guardWait + 4*time.Second + guardTTL/50; len(g.expired) != 400 || g.last() > limit {
			t.Errorf("%d members expired, the last after %s, want 400 within %s", len(g.expired), g.last(), limit)
		}
	})
}

func TestGuardKeepsReturnedMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(1000, guardTTL)
		partitioned := func(id uint64) bool { return id > 400 || time.Since(g.begin) > guardTTL+guardTTL/2 }
		g.run(4*guardTTL, guardTTL, partitioned)
		if len(g.expired) > 20 {
			t.Errorf("a partition of one and a half TTLs cost %d members", len(g.expired))
		}
	})
}

func TestGuardIsForLargeGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(guardMembers, guardTTL)
		g.run(2*guardTTL, guardTTL, func(uint64) bool { return false })
		if len(g.expired) != guardMembers || g.last() > guardTTL+guardTTL/50 {
			t.Errorf("%d members expired, the last after %s", len(g.expired), g.last())
		}
	})
}

func TestAcceptedLossGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(1000, guardTTL)
		dead := func(id uint64) bool { return id > 400 }
		g.run(guardTTL+guardTTL/10, guardTTL, dead)
		before := len(g.expired)
		if n := g.AcceptLoss("g"); n != 400-before {
			t.Errorf("accepted the loss of %d, want %d", n, 400-before)
		}
		g.run(guardTTL/50, guardTTL, dead)
		if len(g.expired) != 400 {
			t.Errorf("%d members expired, want 400 at once", len(g.expired))
		}
		if n := g.AcceptLoss("g"); n != 0 {
			t.Errorf("accepted %d more", n)
		}
		if n := g.AcceptLoss("unknown"); n != 0 {
			t.Errorf("accepted %d in a group that does not exist", n)
		}
		if first := g.first(); first < guardTTL {
			t.Errorf("the first went after %s, before its TTL", first)
		}
	})
}

// Members that leave and return are not lost: churn in a small group does not add up.
func TestGuardDoesNotAddUpChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(15, guardTTL)
		lease := uint64(15)
		for range 10 {
			g.run(guardTTL/10, guardTTL, func(uint64) bool { return true })
			for range 5 { // five are restarted: their old leases end, new ones begin
				lease++
				old := lease - 15
				delete(g.expired, old)
				g.Applied(&fsm.Update{Changes: []fsm.Change{{
					Group: "g",
					Prev:  &fsm.Member{ID: fmt.Sprint(old), LeaseID: old},
					Next:  &fsm.Member{ID: fmt.Sprint(old), LeaseID: lease, Epoch: 1, TTL: guardTTL},
				}}})
			}
		}
		if guard := g.groups["g"]; guard.peak != 15 || guard.members != 15 {
			t.Errorf("the guard counts %d members, at most %d, want 15", guard.members, guard.peak)
		}
	})
}

// An operator's change of a member is no renewal.
func TestUpdateIsNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(1, guardTTL)
		after(guardTTL / 2) // virtual
		m := &fsm.Member{ID: "0", LeaseID: 1, Epoch: 1, TTL: guardTTL}
		g.Applied(&fsm.Update{Changes: []fsm.Change{{Group: "g", Prev: m, Next: &fsm.Member{ID: "0", LeaseID: 1, Epoch: 1, TTL: guardTTL, Weight: 5}}}})
		g.run(guardTTL, guardTTL, func(uint64) bool { return false })
		if at, expired := g.expired[1]; !expired || at > guardTTL+guardTTL/50 {
			t.Errorf("expired %t after %s", expired, at)
		}
	})
}
