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
	n := cap(m.rings.slots)
	for range n {
		m.rings.slots <- struct{}{}
	}
	return sync.OnceFunc(func() {
		for range n {
			<-m.rings.slots
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

func TestCloseWaitsForBuilds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		release := holdBuilds(l.m)
		l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
		closed := false
		go func() { l.m.Close(); closed = true }()
		synctest.Wait()
		if closed {
			t.Error("closed while a build was under way")
		}
		release()
		synctest.Wait()
		if !closed {
			t.Fatal("not closed")
		}
		before := buildsUnderWay()
		l.must(register(newSeat("web", "b", "10.0.0.1:80", "one")))
		if buildsUnderWay() != before {
			t.Error("a build started after Close")
		}
	})
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
