package fsm

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/ring"
)

// holdBuilds keeps ring builds from running until the returned function is called.
func holdBuilds(m *Machine) (release func()) {
	held := []chan struct{}{m.rings.slots, m.rings.small}
	for _, slots := range held {
		for range cap(slots) {
			slots <- struct{}{}
		}
	}
	return sync.OnceFunc(func() {
		for _, slots := range held {
			for range cap(slots) {
				<-slots
			}
		}
	})
}

// buildsUnderWay counts the goroutines that build rings or wait to.
func buildsUnderWay() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), ").run(")
}

func checkView(t *testing.T, v *RingView) {
	t.Helper()
	if v.Ring.Len() != len(v.members) {
		t.Errorf("ring has %d members, the view %d", v.Ring.Len(), len(v.members))
		return
	}
	for i := range v.Ring.Len() {
		in, out := v.Ring.Member(i), v.Member(i)
		if in != (ring.Member{ID: out.ID, Weight: int(out.Weight), State: out.State}) {
			t.Errorf("member %d is %+v on the ring and %+v in the view", i, in, out)
		}
	}
}

// Readers and waiters see rings that only get newer, whose members are theirs,
// while the group changes all the time; and in the end the newest.
func TestRingFollowsChurn(t *testing.T) {
	h := newHistory(t, random(t))
	m := h.log.m
	h.log.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	readers.Go(func() { // looks
		var last uint64
		for ctx.Err() == nil {
			v := m.State().Group("web").Ring()
			if v == nil {
				continue
			}
			if v.Revision < last {
				t.Errorf("ring went back from revision %d to %d", last, v.Revision)
				return
			}
			last = v.Revision
			checkView(t, v)
		}
	})
	for range 2 {
		readers.Go(func() { // waits for what it read
			for ctx.Err() == nil {
				s := m.State()
				g := s.Group("web")
				v, err := g.WaitRing(ctx, s.Index())
				if err != nil {
					return
				}
				if v.Revision < g.Revision {
					t.Errorf("waited for revision %d, got %d", g.Revision, v.Revision)
					return
				}
				checkView(t, v)
			}
		})
	}
	for range historyLength() {
		h.step()
	}
	got := settle(t, m)
	stop()
	readers.Wait()
	for name, want := range scratchRings(t, m.State()) {
		g := m.State().Group(name)
		if v := g.Ring(); got[name] != want || v.Revision != g.Revision {
			t.Errorf("%q: ring %016x at %d, want %016x at %d", name, got[name], v.Revision, want, g.Revision)
		}
	}
}

// A hundred changes while a build waits are one goroutine and one more build.
func TestOneBuildForManyChanges(t *testing.T) {
	l := newLog(t)
	before := buildsUnderWay()
	release := holdBuilds(l.m)
	defer release()
	for i := range 100 {
		l.must(register(newSeat("web", "m"+itoa(i), "10.0.0.1:80", "one")))
	}
	deadline := time.Now().Add(10 * time.Second)
	for buildsUnderWay() == before && time.Now().Before(deadline) {
		runtime.Gosched() // the one goroutine has not been scheduled yet
	}
	if n := buildsUnderWay() - before; n != 1 {
		t.Errorf("%d builds of one group are under way, want 1", n)
	}
	g := l.m.State().Group("web")
	if g.Ring() != nil {
		t.Error("there is a ring before a build ran")
	}
	release()
	settle(t, l.m)
	if v := g.Ring(); v.Ring.Len() != 100 || v.Revision != g.Revision {
		t.Errorf("ring has %d members, at revision %d of %d", v.Ring.Len(), v.Revision, g.Revision)
	}
}

func TestRefreshBuildsNoRing(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	was := l.m.State().Group("web").Ring()
	defer holdBuilds(l.m)()
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	s := l.m.State()
	if v, err := s.Group("web").WaitRing(t.Context(), s.Index()); err != nil || v != was {
		t.Errorf("got another ring, %v", err)
	}
}

// A build under way is waited for; those that wait for their turn are given up,
// and nothing starts any more.
func TestCloseGivesUpWaitingBuilds(t *testing.T) {
	l := newLog(t)
	release := holdBuilds(l.m)
	defer release()
	before := buildsUnderWay()
	for i := range 50 {
		l.must(register(newSeat("web"+itoa(i), "a", "10.0.0.1:80", "one")))
	}
	closed := make(chan struct{})
	go func() { defer close(closed); l.m.Close() }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("Close waits for builds that have not begun")
	}
	if l.m.State().Group("web0").Ring() != nil {
		t.Error("a ring was built after Close")
	}
	l.must(register(newSeat("web", "b", "10.0.0.1:80", "one")))
	if n := buildsUnderWay(); n > before {
		t.Errorf("%d builds after Close, %d before", n, before)
	}
}

func TestCloseWaitsForTheBuildUnderWay(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	cell := l.m.State().Group("web").cell
	cell.mu.Lock() // the build cannot publish
	built := l.m.RingStats().Builds
	cell.hurry()
	l.m.rings.wg.Go(func() { l.m.rings.run(cell) })
	deadline := time.Now().Add(10 * time.Second)
	for l.m.RingStats().Builds == built && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	closed := make(chan struct{})
	go func() { defer close(closed); l.m.Close() }()
	<-l.m.rings.ctx.Done()
	select {
	case <-closed:
		t.Error("closed while a build was under way")
	default:
	}
	cell.mu.Unlock()
	<-closed
}

// Builds are paced under lasting change, but not the first of a group and not
// one that somebody waits for.
func TestPacingHoldsBackOnlyWhatNobodyWaitsFor(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	l.m.rings.pace.spent(time.Hour) // far beyond the share

	l.must(register(newSeat("other", "a", "10.0.0.1:80", "one")))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := l.m.State().Group("other").WaitRing(ctx, l.m.State().Index()); err != nil {
		t.Errorf("first ring of a group: %v", err)
	}
	l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
	g := l.m.State().Group("web")
	if v := g.Ring(); v.Revision == g.Revision {
		t.Error("a ring that nobody waits for was built beyond the share")
	}
	if _, err := g.WaitRing(ctx, l.m.State().Index()); err != nil {
		t.Errorf("a ring that somebody waits for: %v", err)
	}
}

// A watched group has a larger share than one that nobody watches.
func TestWatchedGroupsAreBuiltSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaces()
		p.spent(2 * buildBurst)
		quiet, watched := p.owed(false), p.owed(true)
		if quiet <= 0 || watched <= 0 || quiet < 3*watched {
			t.Errorf("owed %v, watched %v", quiet, watched)
		}
	})
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	l.m.rings.pace.quiet.spent(time.Hour) // far beyond the share of the unwatched
	w := l.m.WatchGroup(KnownGroup{Name: "web"}, WithRing)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := nextStep(ctx, w); err != nil {
		t.Fatal(err)
	}
	if _, wake := w.Poll(); wake == nil { // it waits
		t.Fatal("a step without a change")
	}
	select {
	case <-l.m.State().Group("web").cell.urge: // a word of settle's that came late
	default:
	}
	l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
	if step, err := nextStep(ctx, w); err != nil || len(step.Changes) != 1 {
		t.Errorf("a watched group is held back: %+v, %v", step, err)
	}
}

// The rings of small groups are built while large ones wait for each other.
func TestSmallRingsWaitForNoLargeOne(t *testing.T) {
	l := newLog(t)
	for range cap(l.m.rings.slots) { // large rings under construction
		l.m.rings.slots <- struct{}{}
	}
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := l.m.State().Group("web").WaitRing(ctx, l.m.State().Index()); err != nil {
		t.Errorf("a small ring: %v", err)
	}
	for range cap(l.m.rings.slots) {
		<-l.m.rings.slots
	}
}

// A ring that nobody watches waits until a change has been told; one that was
// watched before does not.
func TestUnwatchedRingsWaitAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		defer l.m.Close()
		l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
		synctest.Wait()
		c := l.m.State().Group("web").cell
		for watched, want := range map[bool]time.Duration{true: 0, false: settleTime} {
			began := time.Now()
			<-l.m.rings.admit(c, watched)
			if took := time.Since(began); took != want {
				t.Errorf("watched %t: waited %v, want %v", watched, took, want)
			}
		}
		if c.awaitRing(true); c.feed.awaited() {
			t.Error("who waits for one ring watches rings")
		}
		began := time.Now()
		<-l.m.rings.admit(c, false)
		if took := time.Since(began); took != 0 {
			t.Errorf("hurried: waited %v", took)
		}
	})
}

// What urged a ring on does not urge the next one on.
func TestUrgeEndsWithItsRing(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	release := holdBuilds(l.m)
	l.must(register(newSeat("web", "b", "10.0.0.1:80", "one")))
	c := l.m.State().Group("web").cell
	built := c.awaitRing(true)
	c.hurry() // the build may have taken the first
	release()
	<-built
	settle(t, l.m)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.urge) != 0 {
		t.Error("an urge was left")
	}
}
