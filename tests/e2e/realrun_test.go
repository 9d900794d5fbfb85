package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// phase is a stretch of the run in which a user may be where it was before or
// where it is after.
type phase struct {
	name          string
	from, to      time.Time
	before, after []string
}

// death is that of a service.
type death struct {
	victim      string
	owners      []string // before it
	at, movedBy time.Time
}

// hits tells whether a request may have met it: its user was the victim's and
// may not have been moved yet.
func (d death) hits(s sample) bool {
	return d.owners[s.user] == d.victim && s.end.After(d.at) && s.start.Before(d.movedBy)
}

// checkSamples: every request of a service that lives succeeded, and went
// where its user belonged at some moment while it was under way. A request of
// the victim's users through a gateway may fail until they have moved.
func checkSamples(t *testing.T, all []sample, phases []phase, d death, gateways int) {
	t.Helper()
	failed, misled, lost := 0, 0, 0
	for _, s := range all {
		if !s.ok() {
			if d.hits(s) && s.router < gateways {
				lost++
				continue
			}
			if failed++; failed <= 10 {
				t.Errorf("failed: %v", s)
			}
			continue
		}
		var allowed []string
		for _, p := range phases {
			if s.end.After(p.from) && s.start.Before(p.to) {
				allowed = append(allowed, p.before[s.user], p.after[s.user])
			}
		}
		if !slices.Contains(allowed, s.served) {
			if misled++; misled <= 10 {
				t.Errorf("misled, its user belongs to %v: %v", allowed, s)
			}
		}
	}
	t.Logf("%d requests: %d failed, %d misled; %d of the killed service's users before they moved", len(all), failed, misled, lost)
}

// moved counts the users that changed, and fails for one that may not have.
func moved(t *testing.T, what string, before, after []string, may func(from, to string) bool) (n int) {
	t.Helper()
	for u := range before {
		if before[u] == after[u] {
			continue
		}
		n++
		if !may(before[u], after[u]) {
			t.Errorf("%s: user %d moved from %s to %s", what, u, before[u], after[u])
		}
	}
	return n
}

// TestRealRun: services, gateways and nodes as processes, users all the time,
// and one thing after the other happens to them.
func TestRealRun(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	calm := shorter(2*time.Second, 500*time.Millisecond)
	c := startCluster(t, 3)
	services := map[string]*webservice{}
	for i, n := range c.nodes {
		id := fmt.Sprintf("web-%d", i+1)
		services[id] = newWebservice(t, id, n.addr, ttl)
	}
	for _, w := range services {
		w.registered(c.nodes[0].addr)
	}
	c.settled(3)
	var gateways []*gateway
	var routers []router // gateways 1 to 3, then clients 4 to 6, of one node each
	for i, n := range c.nodes {
		g := startGateway(t, fmt.Sprintf("gateway-%d", i+1), n.addr)
		gateways, routers = append(gateways, g), append(routers, g)
	}
	for _, n := range c.nodes {
		routers = append(routers, asking{dial(t, n.addr)})
	}
	three := mustSweep(t, routers)
	t.Logf("three services: %v", countOf(three))

	began := time.Now()
	load := startLoad(t, routers)
	pass(t, calm)

	// A fourth service joins.
	joins := time.Now()
	services["web-4"] = newWebservice(t, "web-4", c.nodes[1].addr, ttl)
	services["web-4"].registered(c.nodes[0].addr)
	c.settled(3)
	var four []string
	eventually(t, patience, "the fourth service at all routers", func() (err error) {
		if four, err = sweep(t, routers); err == nil && countOf(four)["web-4"] == 0 {
			err = fmt.Errorf("%v", countOf(four))
		}
		return err
	})
	joined := time.Now()
	n := moved(t, "join", three, four, func(_, to string) bool { return to == "web-4" })
	t.Logf("four services: %v; %d of %d users moved, %v after the start of the fourth all gateways and nodes knew", countOf(four), n, users, ms(joined.Sub(joins)))
	if n < users*15/100 || n > users*35/100 {
		t.Errorf("%d of %d users moved, want about a quarter", n, users)
	}
	pass(t, calm)

	// A service dies without a word.
	const victim = "web-2"
	killed := time.Now()
	services[victim].kill()
	limit := ttl + time.Second + noise
	pass(t, time.Until(killed.Add(limit)))
	dead := death{victim: victim, owners: four, at: killed, movedBy: killed.Add(limit)}
	left := mustSweep(t, routers)
	swept := time.Now()
	n = moved(t, "kill of a service", four, left, func(from, to string) bool { return from == victim && to != victim })
	if want := countOf(four)[victim]; n != want {
		t.Errorf("%d users moved, the killed service had %d", n, want)
	}
	t.Logf("%v after the kill: %v", ms(swept.Sub(killed)), countOf(left))

	// The leader dies without a word.
	leader, others := c.leader()
	leaderKilled := time.Now()
	leader.kill()
	id, _ := newLeader(t, others[0], leader.id)
	elected := time.Since(leaderKilled)
	pass(t, ttl+shorter(time.Second, 0)) // long enough for a lease that is not renewed to go
	again := time.Now()
	leader.start()
	c.settled(3)
	t.Logf("leader killed: %s leads after %v; the killed node had caught up %v after its restart", id, ms(elected), ms(time.Since(again)))
	pass(t, calm)
	load.end()
	ended := time.Now()
	moved(t, "kill of the leader", left, mustSweep(t, routers), func(_, _ string) bool { return false })

	all := load.sorted()
	checkSamples(t, all, []phase{
		{"three services", began, joins, three, three},
		{"a service joins", joins, joined, three, four},
		{"four services", joined, killed, four, four},
		{"a service is gone", killed, dead.movedBy, four, left},
		{"its users have moved", dead.movedBy, ended, left, left},
	}, dead, len(gateways))
	first, last := moves(all, dead)
	t.Logf("TTL %v: users of the killed service moved between %v and %v after its death", ttl, ms(first.Sub(killed)), ms(last.Sub(killed)))
	if early := killed.Add(ttl / 2); first.Before(early) { // its last heartbeat was at most a third of the TTL old
		t.Errorf("users moved %v after the kill: the lease was cut short", ms(first.Sub(killed)))
	}
	worst, count := slowest(all, leaderKilled, again)
	t.Logf("%d requests between the leader's death and its restart, the slowest took %v", count, ms(worst.end.Sub(worst.start)))
	for _, g := range gateways {
		if g.hasEnded() {
			t.Errorf("%s ended: exit code %d", g.name, g.code)
		}
	}
}

// moves finds, among requests of the victim's users that started after its
// death, the first that was routed elsewhere and the last that was not.
func moves(all []sample, d death) (first, last time.Time) {
	for _, s := range all {
		switch {
		case s.start.Before(d.at) || d.owners[s.user] != d.victim:
		case !s.ok() || s.served == d.victim:
			last = s.start
		case first.IsZero():
			first = s.end
		}
	}
	return first, last
}

// pass lets time pass while others work.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
