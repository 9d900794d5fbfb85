package e2e

import (
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// TestMassLoss kills 40 % of 10,000 members at once, lets the guard have its
// way, kills 40 % of those that are left and accepts that loss by hand. At no
// time may a member go whose heartbeats are answered.
func TestMassLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 members take half a minute")
	}
	if raceEnabled {
		t.Skip("10,000 members keep two cores busy without the race detector")
	}
	const members, ttl, rate = 10_000, 3 * time.Second, 1000 // rate: 10 % of the group a second
	c := startCluster(t, 3)
	began := time.Now()
	h := newHerd(t, c, 1, members, ttl)
	t.Logf("%d members registered in %v", members, ms(time.Since(began)))
	leader, others := c.leader()
	seen := watchDepartures(t, others[0], "herd-0")
	seen.await(t, members, patience)
	h.beating(0)

	// A network that fails, or a crash: the guard holds, then lets go.
	killed := h.kill(0, 4)
	held := guardIs(t, others[1], "herd-0", registrypb.GuardResponse_PHASE_HOLDING, patience)
	t.Logf("%v after the kill: %v", ms(time.Since(killed)), held)
	leader.says("fell silent at once", patience)
	// TTL, TTL/3 to see whether more follow, one TTL of hold, 4,000 at the rate.
	limit := ttl + ttl/3 + ttl + 4000/rate*time.Second + 4*noise
	seen.await(t, members-4000, limit)
	first, last := seen.check(h, 0, 4)
	t.Logf("the first of 4,000 went %v after the kill, the last %v, promised within %v",
		ms(first.Sub(killed)), ms(last.Sub(killed)), limit-4*noise)
	h.beating(4)
	if n := seen.between(killed.Add(ttl+ttl/3), killed.Add(2*ttl-ttl/3)); n > 0 {
		t.Errorf("%d members went during the hold", n)
	}
	leader.says("mass loss is over", patience)
	guardIs(t, others[1], "herd-0", registrypb.GuardResponse_PHASE_IDLE, patience)

	// A scale-down: an operator says so.
	seen.forget()
	killed = h.kill(4, 7)
	guardIs(t, others[0], "herd-0", registrypb.GuardResponse_PHASE_HOLDING, patience)
	silentAre(t, others[0], "herd-0", 2800, ttl+noise)
	said := time.Now()
	out := ok(t, "group", "accept-loss", "-yes", "-registries", others[1].addr, "herd-0")
	eventually(t, ttl+noise, "members gone", func() error { return sizeIs(t, leader, "herd-0", members-7000) })
	state := time.Now()
	gone := seen.await(t, members-7000, patience) // rings of that size are paced
	t.Logf("accepted %v after the kill: %q; all gone from the state %v later, from watchers' rings %v later",
		ms(said.Sub(killed)), out, ms(state.Sub(said)), ms(gone.Sub(said)))
	seen.check(h, 4, 7)
	h.beating(7)
	checkDigests(t, c.settled(3))
}

// TestMassLossAndLeaderChange hands leadership over while the guard holds the
// dead. The new leader gives everyone a full TTL and its guard starts over, so
// the dead stay that much longer, and no longer; the living stay throughout.
func TestMassLossAndLeaderChange(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	if raceEnabled {
		t.Skip("2,000 members keep two cores busy without the race detector")
	}
	const members, ttl = 2000, 3 * time.Second
	c := startCluster(t, 3)
	h := newHerd(t, c, 1, members, ttl)
	_, others := c.leader()
	seen := watchDepartures(t, others[0], "herd-0")
	seen.await(t, members, patience)
	h.beating(0)
	killed := h.kill(0, 1)
	guardIs(t, others[0], "herd-0", registrypb.GuardResponse_PHASE_HOLDING, patience)
	before := seen.count()
	ok(t, "cluster", "transfer", "-registries", others[0].addr, others[0].id)
	changed := time.Now()
	guardIs(t, others[0], "herd-0", registrypb.GuardResponse_PHASE_IDLE, ttl)
	// TTL, TTL/3, one TTL of hold, 1,000 at 200 a second.
	limit := ttl + ttl/3 + ttl + 5*time.Second + 4*noise
	seen.await(t, members-perStream, limit)
	_, last := seen.check(h, 0, 1)
	t.Logf("led by another %v after the kill; the last of %d dead went %v after that, promised within %v",
		ms(changed.Sub(killed)), perStream, ms(last.Sub(changed)), limit-4*noise)
	if n := seen.between(changed, changed.Add(ttl-noise)); n > 0 || before > members/50 {
		t.Errorf("%d went before the change, %d within a TTL after it", before, n)
	}
	h.beating(1)
	checkDigests(t, c.settled(3))
}
