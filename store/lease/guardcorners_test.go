package lease

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// guardLimit is the bound for one member from its last heartbeat, see guard.go.
func guardLimit(ttl time.Duration) time.Duration {
	return ttl + ttl/guardWait + ttl + guardDrain + ttl/50
}

// grow adds members from+1 to to in a group.
func (g *guardTable) grow(group string, from, to int, ttl time.Duration) {
	for id := from + 1; id <= to; id++ {
		g.Applied(&fsm.Update{Changes: []fsm.Change{{Group: group, Next: &fsm.Member{ID: fmt.Sprint(id), LeaseID: uint64(id), Epoch: 1, TTL: ttl}}}})
	}
}

func (g *guardTable) deregister(id uint64) {
	g.Applied(&fsm.Update{Changes: []fsm.Change{{Group: "g", Prev: &fsm.Member{ID: fmt.Sprint(id), LeaseID: id}}}})
}

// expiredOf counts the expired members with from < id <= to, and when the last one expired.
func (g *guardTable) expiredOf(from, to uint64) (n int, last time.Duration) {
	for id, at := range g.expired {
		if id > from && id <= to {
			n++
			last = max(last, at)
		}
	}
	return n, last
}

// The guard acts above 30 %, in groups above 20 members.
func TestGuardBeginsAboveItsLimits(t *testing.T) {
	for _, c := range []struct {
		members, dead int
		held          bool
	}{
		{20, 7, false}, {20, 20, false}, {21, 6, false}, {21, 7, true},
		{100, 30, false}, {100, 31, true}, {1000, 300, false}, {1000, 301, true},
	} {
		t.Run(fmt.Sprintf("%d of %d", c.dead, c.members), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuardTable(c.members, guardTTL)
				alive := func(id uint64) bool { return id > uint64(c.dead) }
				g.run(guardTTL+guardTTL/guardWait+guardTTL/50, guardTTL, alive)
				atOnce := max(guardAtLeast, c.members*guardAtOnce/100)
				if c.held && len(g.expired) > atOnce {
					t.Errorf("%d went before the hold, want at most %d", len(g.expired), atOnce)
				}
				if !c.held && len(g.expired) != c.dead {
					t.Errorf("%d went within TTL and TTL/3, want all %d", len(g.expired), c.dead)
				}
				if holds := g.Stats().Holds; holds != map[bool]uint64{true: 1}[c.held] {
					t.Errorf("%d holds", holds)
				}
				g.run(guardLimit(guardTTL)-g.elapsed(), guardTTL, alive)
				if len(g.expired) != c.dead {
					t.Errorf("%d went in the end, want %d", len(g.expired), c.dead)
				}
				if s := g.Stats(); s.Silent != 0 || len(s.Holding) != 0 {
					t.Errorf("something is left: %+v", s)
				}
			})
		})
	}
}

func (g *guardTable) elapsed() time.Duration { return time.Since(g.begin) }

// Groups are independent: the loss of one group neither delays nor releases another's
// members.
func TestGuardsOfSeveralGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(1000, guardTTL)    // half dead
		g.grow("other", 1000, 1100, guardTTL) // 10 dead: a tenth
		g.grow("third", 1100, 1200, guardTTL) // 90 dead
		alive := func(id uint64) bool {
			return id > 500 && id <= 1000 || id > 1010 && id <= 1100 || id > 1190
		}
		g.run(guardTTL+guardTTL/guardWait+guardTTL/50, guardTTL, alive)
		if n, _ := g.expiredOf(1000, 1100); n != 10 {
			t.Errorf("%d of the small loss went in time, want 10", n)
		}
		if n, _ := g.expiredOf(0, 1000); n > 20 {
			t.Errorf("%d of the first group went", n)
		}
		s := g.Stats()
		if len(s.Holding) != 2 || s.Holding[0].Group != "g" || s.Holding[1].Group != "third" || s.Holding[0].Phase != Holding {
			t.Errorf("holding: %+v", s.Holding)
		}
		if s.Silent != g.Status("g").Silent+g.Status("third").Silent {
			t.Errorf("%d silent in all: %+v", s.Silent, s.Holding)
		}
		if n := g.AcceptLoss("third"); n == 0 {
			t.Error("nothing accepted")
		}
		g.run(guardTTL/50, guardTTL, alive)
		if n, _ := g.expiredOf(1100, 1200); n != 90 {
			t.Errorf("%d of the accepted loss are expired, want 90", n)
		}
		if n, _ := g.expiredOf(0, 1000); n > 20 {
			t.Errorf("accepting one group's loss let %d of another go", n)
		}
	})
}

// A new leader gives every lease a full TTL, and its guard starts empty: each change adds
// at most the bound again.
func TestGuardStartsEmptyWithANewLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(0, guardTTL)
		l := newLeaseLog(t)
		l.Lead(l.machine)
		g.Table = l.Table
		for i := range 100 {
			l.register(fmt.Sprint(i), guardTTL)
		}
		after(guardTTL + guardTTL/2)
		l.Due(1000)
		if s := l.Status("web"); s.Phase != Holding || s.Silent < 90 {
			t.Fatalf("before the change: %+v", s)
		}
		l.Follow()
		if s := l.Stats(); s.Silent != 0 || len(s.Holding) != 0 || s.Holds != 1 {
			t.Errorf("at rest: %+v", s)
		}
		l.Lead(l.machine)
		if s := l.Status("web"); s.Phase != Idle || s.Members != 100 {
			t.Errorf("after the change: %+v", s)
		}
		began, expired := time.Now(), 0
		for time.Since(began) < guardLimit(guardTTL) {
			due, _ := l.Due(1000)
			if len(due) > 0 && time.Since(began) < guardTTL {
				t.Fatalf("%d went %s after the change, before a full TTL", len(due), time.Since(began))
			}
			if expired += len(due); len(due) > 0 {
				l.expire(due)
			}
			after(10 * time.Millisecond)
		}
		if expired != 100 {
			t.Errorf("%d of 100 went within the bound of one more round", expired)
		}
	})
}

// In a group of members with longer TTLs, a member is held for its own TTL only.
func TestGuardHoldsNoMemberForLongerThanItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const long = time.Hour
		g := newGuardTable(0, guardTTL)
		g.grow("g", 0, 70, long)
		g.grow("g", 70, 100, guardTTL)
		// The deadlines of the long leases pass first, those of the short ones just after.
		alive := func(id uint64) bool { return id > 70 && g.elapsed() < long-guardTTL/2 }
		g.run(long-guardTTL, guardTTL, alive)
		g.run(guardTTL/2+guardLimit(guardTTL), guardTTL, alive)
		n, last := g.expiredOf(70, 100)
		if limit := long - guardTTL/2 + guardLimit(guardTTL); n != 30 || last > limit {
			t.Errorf("%d of 30 with a TTL of %s went, the last at %s, want %s", n, guardTTL, last, limit)
		}
	})
}

// A third falls silent at once, and then a few more all the time, faster than any hold
// ends. Each still expires within the bound from its own last heartbeat.
func TestGuardIsBoundedUnderWaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const members, first, wave = 1000, 350, 10
		g := newGuardTable(members, guardTTL)
		silentFrom := func(id uint64) time.Duration {
			return time.Duration(max(0, int(id)-first)/wave) * guardTTL / 6
		}
		g.run(silentFrom(members)+guardLimit(guardTTL), guardTTL, func(id uint64) bool { return g.elapsed() < silentFrom(id) })
		if len(g.expired) != members {
			t.Fatalf("%d of %d went", len(g.expired), members)
		}
		if g.Stats().Holds == 0 {
			t.Error("the guard never acted: the test shows nothing")
		}
		for id, at := range g.expired {
			if waited := at - silentFrom(id); waited > guardLimit(guardTTL) {
				t.Fatalf("member %d went %s after it fell silent, want at most %s", id, waited, guardLimit(guardTTL))
			}
		}
	})
}

// Members that fall silent and return again and again take slots of the release without
// using them. The dead ones still expire in time.
func TestGuardIsBoundedWhileOthersFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl, members, dead, late = time.Second, 1000, 50, 600 * time.Millisecond
		g := newGuardTable(members, ttl)
		flap := func(d time.Duration, from uint64) {
			for end := g.elapsed() + d; g.elapsed() < end; {
				for id := from; id <= members; id++ {
					if l := g.byID[id]; l != nil && g.now() > l.deadline.Load()+int64(late) {
						g.renew(id)
					}
				}
				g.run(ttl/300, ttl, func(uint64) bool { return false })
			}
		}
		for id := uint64(1); id <= members; id++ { // not all at the same moment
			g.renew(id)
			after(ttl / members)
		}
		flap(20*ttl, 1)
		before := len(g.expired)
		flap(guardLimit(ttl), dead+1)
		left := 0
		for id := uint64(1); id <= dead; id++ {
			if g.byID[id] != nil {
				left++
			}
		}
		if left > 0 || before > members/2 {
			t.Errorf("%d of %d dead are left after %s; %d went before", left, dead, guardLimit(ttl), before)
		}
		if s := g.Stats(); s.Returned < 10*members {
			t.Errorf("too few returned, the test shows nothing: %+v", s)
		}
	})
}

// Deregistered members are no loss.
func TestDeregistrationsAreNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(100, guardTTL)
		alive := func(id uint64) bool {
			switch {
			case id == 20: // dies first: a window begins
				return g.elapsed() < guardTTL/10
			case id <= 3:
				return g.elapsed() < guardTTL/2
			}
			return true
		}
		g.run(guardTTL+guardTTL/10, guardTTL, alive)
		for id := range uint64(60) {
			g.deregister(100 - id)
		}
		g.run(2*guardTTL, guardTTL, alive)
		if len(g.expired) != 4 || g.Stats().Holds != 0 {
			t.Errorf("%d of 4 dead went, %d holds", len(g.expired), g.Stats().Holds)
		}
	})
}

// The status and the log lines of a loss.
func TestGuardReportsALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuardTable(100, guardTTL)
		var logged messages
		g.log = slog.New(&logged)
		alive := func(id uint64) bool { return id > 50 || id > 40 && g.elapsed() > 2*guardTTL }
		phase := func(want Phase) {
			t.Helper()
			if s := g.Status("g"); s.Phase != want {
				t.Errorf("at %s: %+v, want phase %s", g.elapsed(), s, want)
			}
		}
		phase(Idle)
		g.run(guardTTL+guardTTL/50, guardTTL, alive)
		phase(Holding)
		g.run(guardTTL+guardTTL/20, guardTTL, alive)
		phase(Releasing)
		g.run(2*guardDrain, guardTTL, alive)
		phase(Idle)
		if s := g.Stats(); s.Returned < 7 || s.Returned+s.Gone != 47 || s.Holds != 1 || s.Silent != 0 {
			t.Errorf("counted %+v", s)
		}
		if len(logged) != 3 {
			t.Errorf("logged %q", logged)
		}
	})
}

// messages collects log messages.
type messages []string

func (m *messages) Enabled(context.Context, slog.Level) bool { return true }
func (m *messages) Handle(_ context.Context, r slog.Record) error {
	*m = append(*m, r.Message)
	return nil
}
func (m *messages) WithAttrs([]slog.Attr) slog.Handler { return m }
func (m *messages) WithGroup(string) slog.Handler      { return m }
