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
	held := guardIs(t, others[1], "herd-0", registrypb.GuardResponse_PHASE_HOLDING, ttl+noise)
	t.Logf("%v after the kill: %v", ms(time.Since(killed)), held)
	leader.says("fell silent at once", time.Second)
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
	leader.says("mass loss is over", 2*time.Second)
	guardIs(t, others[1], "herd-0", registrypb.GuardResponse_PHASE_IDLE, 2*time.Second)

	// A scale-down: an operator says so.
	seen.forget()
	killed = h.kill(4, 7)
	guardIs(t, others[0], "herd-0", registrypb.GuardResponse_PHASE_HOLDING, ttl+noise)
	silentAre(t, others[0], "herd-0", 2800, ttl)
	said := time.Now()
	out := ok(t, "group", "accept-loss", "-registries", others[1].addr, "herd-0")
	eventually(t, ttl, "members gone", func() error { return sizeIs(t, leader, "herd-0", members-7000) })
	state := time.Now()
	gone := seen.await(t, members-7000, patience) // rings of that size are paced
	t.Logf("accepted %v after the kill: %q; all gone from the state %v later, from watchers' rings %v later",
		ms(said.Sub(killed)), out, ms(state.Sub(said)), ms(gone.Sub(said)))
	seen.check(h, 4, 7)
	h.beating(7)
	checkDigests(t, c.settled(3))
}
