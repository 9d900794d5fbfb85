package fsm

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// groupsModel is what a watcher's steps add up to: ids to modified indexes, by group.
type groupsModel struct {
	t         *testing.T
	name      string
	revisions map[string]uint64
	members   map[string]map[string]uint64
}

func (g *groupsModel) take(s Step) {
	if s.Unknown {
		delete(g.revisions, s.Group)
		delete(g.members, s.Group)
	}
	if s.View != nil {
		g.start(s.Group, s.View.Revision, s.View.members)
	}
	for _, c := range s.Changes {
		if c.From != g.revisions[s.Group] {
			g.t.Errorf("%s: a step of %s from %d at %d", g.name, s.Group, c.From, g.revisions[s.Group])
		}
		for _, id := range c.Removed {
			delete(g.members[s.Group], id)
		}
		for _, m := range c.Put {
			g.members[s.Group][m.ID] = m.ModifiedIndex
		}
		g.revisions[s.Group] = c.Revision
	}
}

func (g *groupsModel) start(group string, revision uint64, members []*Member) {
	g.revisions[group], g.members[group] = revision, map[string]uint64{}
	for _, m := range members {
		g.members[group][m.ID] = m.ModifiedIndex
	}
}

func (g *groupsModel) check(s *State) {
	for group, at := range g.revisions {
		want := map[string]uint64{}
		for m := range s.Group(group).Members {
			want[m.ID] = m.ModifiedIndex
		}
		if at != s.Group(group).Revision || !maps.Equal(want, g.members[group]) {
			g.t.Errorf("%s: level, with %s at %d %v, want %d %v", g.name, group, at, g.members[group], s.Group(group).Revision, want)
		}
	}
}

// watcherUnderTest is polled when it is woken, and not otherwise.
type watcherUnderTest struct {
	poll  func() ([]Step, <-chan struct{})
	level func(*State) bool
	model groupsModel
}

func (w *watcherUnderTest) run(quiet <-chan struct{}, final func() *State) {
	var late <-chan time.Time
	for {
		steps, wake := w.poll()
		for _, s := range steps {
			w.model.take(s)
		}
		if wake == nil {
			continue
		}
		if quiet == nil && w.level(final()) {
			w.model.check(final())
			return
		}
		select {
		case <-wake:
			continue
		case <-quiet:
			quiet, late = nil, time.After(20*time.Second)
			if w.level(final()) {
				w.model.check(final())
				return
			}
		case <-late:
		}
		select { // from here on no wake-up may be missing
		case <-wake:
		case <-late:
			w.model.t.Errorf("%s: nobody told it of the newest state", w.model.name)
			return
		}
	}
}

// newWatcherUnderTest knows nothing, or a ring, or a revision that may have none.
func newWatcherUnderTest(t *testing.T, m *Machine, rnd *rand.Rand, groups []string) *watcherUnderTest {
	group, timing := groups[rnd.IntN(len(groups))], Timing(rnd.IntN(2))
	w := &watcherUnderTest{model: groupsModel{t: t, revisions: map[string]uint64{}, members: map[string]map[string]uint64{}}}
	known := KnownGroup{Name: group}
	if g := m.State().Group(group); g != nil && rnd.IntN(2) == 0 {
		if v := g.Ring(); v != nil && rnd.IntN(2) == 0 {
			known.Revision, known.Fingerprint = v.Revision, v.Ring.Fingerprint()
			w.model.start(group, v.Revision, v.members)
		} else if timing == AtOnce {
			known.Revision, known.Fingerprint = g.Revision, uint64(rnd.IntN(2)*77)
			var members []*Member
			for m := range g.Members {
				members = append(members, m)
			}
			w.model.start(group, g.Revision, members)
		}
	}
	if rnd.IntN(2) == 0 {
		g := m.WatchGroup(known, timing)
		w.level = g.Level
		w.poll = func() ([]Step, <-chan struct{}) {
			step, wake := g.Poll()
			if wake != nil {
				return nil, wake
			}
			return []Step{step}, nil
		}
		w.model.name = fmt.Sprintf("watcher of a group, timing %d, that knew %d", timing, known.Revision)
		return w
	}
	var all []KnownGroup
	if known.Revision != 0 {
		all = append(all, known)
	}
	p := m.WatchPrefix("w", timing, all...)
	w.poll, w.level = p.Poll, p.Level
	w.model.name = fmt.Sprintf("watcher of a prefix, timing %d, that knew %d", timing, known.Revision)
	return w
}

// dawdle lets others run for a while.
func dawdle(rnd *rand.Rand, most int) {
	for range rnd.IntN(most) {
		runtime.Gosched()
	}
}

// Whatever happens, and whenever a watcher came: what it is told adds up, and it
// is woken for all that it has to be told.
func TestWatchersOfARandomHistory(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for round := 0; round < rounds && !t.Failed(); round++ {
		watchersRound(t, rand.New(rand.NewPCG(seed, uint64(round))))
	}
}

// slowObserver widens the gap between a state and the news of it.
type slowObserver struct{ rnd *rand.Rand }

func (o *slowObserver) Applied(*State, []Change, []uint64) { dawdle(o.rnd, 200) }
func (o *slowObserver) Restored(*State)                    {}

func watchersRound(t *testing.T, rnd *rand.Rand) {
	l := newLog(t, &slowObserver{rnd})
	groups := []string{"w0", "w1"}
	quiet := make(chan struct{})
	var final *State // before quiet is closed
	var all sync.WaitGroup
	var snapshot []byte
	for i := range 200 {
		switch what := rnd.IntN(60); {
		case what == 0:
			snapshot = snapshotBytes(t, l.m.State())
		case what == 1 && snapshot != nil:
			if err := l.m.Restore(bytes.NewReader(snapshot)); err != nil {
				t.Fatal(err)
			}
		case what < 35:
			var entries []Entry
			for range 1 + rnd.IntN(3) {
				s := newSeat(groups[rnd.IntN(2)], itoa(rnd.IntN(6)), "10.0.0.1:"+itoa(1+i), itoa(int(l.index)))
				s.TakeOver = true
				entries = append(entries, l.entry(register(s)))
			}
			l.m.Apply(entries)
		case what < 45:
			l.apply(deregister(groups[rnd.IntN(2)], itoa(rnd.IntN(6)), ""))
		case what < 53:
			w := newWatcherUnderTest(t, l.m, rnd, groups)
			all.Go(func() { w.run(quiet, func() *State { return final }) })
		default:
			dawdle(rnd, 3000)
		}
	}
	for _, g := range groups { // that exist, whatever was restored
		l.apply(register(&seat{Group: g, Id: "last", Addr: "10.0.0.1:80", Weight: 1, TtlMs: 10_000, Instance: []byte("last"), TakeOver: true}))
	}
	final = l.m.State()
	close(quiet)
	all.Wait()
	l.m.Close()
}
