package lease

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

func holding(id, instance string, hold time.Duration) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{
		Group: "web", Id: id, StatePlusOne: uint32(ring.Held) + 1, HoldMs: hold.Milliseconds(), Instance: []byte(instance),
	}}}
}

func resuming(id string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{
		Group: "web", Id: id, StatePlusOne: uint32(ring.Active) + 1,
	}}}
}

func TestHeldMemberNeedsNoHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		l.register("a", 10*time.Second)
		after(9 * time.Second)
		l.apply(holding("a", "one", time.Minute))
		after(time.Minute - 1)
		want(t, "one nanosecond before the end of the hold", l.dueNow(10))
		after(1)
		leases, _ := l.Due(10)
		if len(leases) != 1 || !l.expire(leases) {
			t.Errorf("at the end of the hold: %v", leases)
		}
		if l.Len() != 0 || len(l.groups) != 0 {
			t.Errorf("%d leases and %d groups are left", l.Len(), len(l.groups))
		}
	})
}

// No lease expires earlier than a TTL after its last renewal, held or not.
func TestHoldIsAtLeastTheTTL(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		l.register("a", 10*time.Second)
		l.apply(holding("a", "", time.Second))
		after(10*time.Second - 1)
		want(t, "before the TTL", l.dueNow(10))
		after(1)
		want(t, "after it", l.dueNow(10), "a")
	})
}

// An operator holds a member that still sends heartbeats: the hold counts from the last
// one.
func TestHoldCountsFromTheLastHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		id := l.register("a", 3*time.Second)
		l.apply(holding("a", "", 30*time.Second))
		for range 100 {
			after(time.Second)
			l.renew(id)
		}
		after(30*time.Second - 1)
		want(t, "before the end", l.dueNow(10))
		after(1)
		want(t, "at the end", l.dueNow(10), "a")
	})
}

func TestResumedMemberHasItsTTLAgain(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		l.register("a", 10*time.Second)
		l.apply(holding("a", "", time.Hour))
		after(time.Minute)
		l.apply(resuming("a"))
		after(10*time.Second - 1)
		want(t, "before the TTL", l.dueNow(10))
		after(1)
		want(t, "after it", l.dueNow(10), "a")
	})
}

func TestReturnEndsTheHold(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		l.register("a", 10*time.Second)
		l.apply(holding("a", "one", time.Minute))
		after(59 * time.Second)
		l.apply(registration("a", "two", 10*time.Second))
		after(10*time.Second - 1)
		want(t, "after the hold would have been over", l.dueNow(10))
		after(1)
		want(t, "after the TTL", l.dueNow(10), "a")
	})
}

// A new leader has no deadlines: the full hold begins again. So does it after an
// installed snapshot, and after a restart of the whole cluster.
func TestNewLeaderBeginsTheHoldAgain(t *testing.T) {
	for name, again := range map[string]func(*leaseLog){
		"new leader": func(l *leaseLog) { l.Follow(); l.Lead(l.machine) },
		"snapshot":   func(l *leaseLog) { l.Restored(l.machine.State()) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *leaseLog) {
				l.register("a", 10*time.Second)
				l.apply(holding("a", "one", time.Minute))
				after(59 * time.Second)
				again(l)
				after(time.Minute - 1)
				want(t, "before the end", l.dueNow(10))
				after(1)
				want(t, "at the end", l.dueNow(10), "a")
			})
		})
	}
}

// A hold that is applied before a proposed expiry voids the expiry: the member stays for
// the full hold.
func TestHoldOvertakesAnExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		l.register("a", 10*time.Second)
		after(10 * time.Second)
		leases, _ := l.Due(10)
		l.apply(holding("a", "one", time.Minute))
		if len(leases) != 1 || l.expire(leases) {
			t.Fatalf("%d expired, or the expiry took effect", len(leases))
		}
		after(time.Minute - 1)
		want(t, "before the end", l.dueNow(10))
		after(1)
		want(t, "at the end", l.dueNow(10), "a")
	})
}

// heldGroup is a group of 100 of which the first n are held.
func heldGroup(n int, hold time.Duration) *guardTable {
	g := newGuardTable(100, guardTTL)
	for i := range n {
		m := &fsm.Member{ID: fmt.Sprint(i), LeaseID: uint64(i + 1), Epoch: 1, TTL: guardTTL}
		held := *m
		held.State, held.Hold, held.Epoch = ring.Held, hold, 2
		g.Applied(&fsm.Update{Changes: []fsm.Change{{Group: "g", Prev: m, Next: &held}}})
	}
	return g
}

// Ninety of a hundred are held and do not return: they expire at the end of their holds,
// which is no mass loss.
func TestGuardDoesNotDelayHeldMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := heldGroup(90, 2*guardTTL)
		g.run(4*guardTTL, guardTTL, func(id uint64) bool { return id > 90 })
		if limit := 2*guardTTL + guardTTL/50; len(g.expired) != 90 || g.first() < 2*guardTTL || g.last() > limit {
			t.Errorf("%d members expired, between %s and %s, want 90 by %s", len(g.expired), g.first(), g.last(), limit)
		}
		if guard := g.groups["g"]; guard.members != 10 || guard.leases != 10 || guard.silent != 0 {
			t.Errorf("the guard counts %+v", guard)
		}
	})
}

// Two crashes while half the group is held are two of fifty, also after the end of the
// holds: they expire at once.
func TestHeldMembersAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := heldGroup(50, guardTTL+guardTTL/2)
		g.run(2*guardTTL, guardTTL, func(id uint64) bool { return id > 52 })
		if limit := guardTTL + guardTTL/50; len(g.expired) != 52 || g.expired[51] > limit || g.expired[52] > limit {
			t.Errorf("%d members expired, the dead ones after %s and %s", len(g.expired), g.expired[51], g.expired[52])
		}
	})
}

// Returned members count again.
func TestGuardCountsReturnedMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := heldGroup(100, 10*guardTTL)
		if guard := g.groups["g"]; guard.members != 0 || guard.leases != 100 {
			t.Errorf("all are held: the guard counts %+v", guard)
		}
		for i := range 100 {
			old := uint64(i + 1)
			g.Applied(&fsm.Update{Changes: []fsm.Change{{
				Group: "g",
				Prev:  &fsm.Member{ID: fmt.Sprint(i), LeaseID: old},
				Next:  &fsm.Member{ID: fmt.Sprint(i), LeaseID: 100 + old, Epoch: 1, TTL: guardTTL},
			}}})
		}
		if guard := g.groups["g"]; guard.members != 100 || guard.leases != 100 || guard.peak != 100 {
			t.Errorf("all are back: the guard counts %+v", guard)
		}
	})
}
