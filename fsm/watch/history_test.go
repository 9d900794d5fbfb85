package watch

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// model is the sum of a watcher's steps: ids to modified indexes, by group.
type model struct {
	t       *testing.T
	name    string
	at      map[string]Known
	members map[string]map[string]uint64
}

func (g *model) take(s Step) {
	if s.Unknown {
		delete(g.at, s.Group)
		delete(g.members, s.Group)
	}
	if s.Snapshot != nil {
		g.start(s.Snapshot.Group)
	}
	for _, c := range s.Changes {
		if at := g.at[s.Group]; c.From != at.Revision || c.FromFingerprint != at.Fingerprint {
			g.t.Errorf("%s: a step of %s from %d at %d", g.name, s.Group, c.From, at.Revision)
		}
		for _, id := range c.Removed {
			if _, ok := g.members[s.Group][id]; !ok {
				g.t.Errorf("%s: %q is removed from %s and was not there", g.name, id, s.Group)
			}
			delete(g.members[s.Group], id)
		}
		for _, m := range c.Put {
			g.members[s.Group][m.ID] = m.ModifiedIndex
		}
		g.at[s.Group] = Known{s.Group, c.Revision, c.Fingerprint}
	}
}

func (g *model) start(group *fsm.Group) {
	g.at[group.Name], g.members[group.Name] = Known{group.Name, group.Revision, group.Fingerprint()}, map[string]uint64{}
	for m := range group.Members {
		g.members[group.Name][m.ID] = m.ModifiedIndex
	}
}

func (g *model) check(s *fsm.State) {
	for name, at := range g.at {
		group, want := s.Group(name), map[string]uint64{}
		for m := range group.Members {
			want[m.ID] = m.ModifiedIndex
		}
		if at != (Known{name, group.Revision, group.Fingerprint()}) || !maps.Equal(want, g.members[name]) {
			g.t.Errorf("%s: progress, with %+v %v, want revision %d %v", g.name, at, g.members[name], group.Revision, want)
		}
	}
}

// watcher is polled when it is woken, and not otherwise.
type watcher struct {
	poll     func() ([]Step, <-chan struct{})
	progress func() (uint64, bool)
	model    model
}

// run polls until the watcher has all of the final state, which is there when
// quiet is closed.
func (w *watcher) run(quiet <-chan struct{}, final func() *fsm.State) {
	var late <-chan time.Time
	for {
		steps, wake := w.poll()
		for _, s := range steps {
			w.model.take(s)
		}
		if quiet == nil {
			if index, ok := w.progress(); ok && index >= final().Index() {
				w.model.check(final())
				return
			}
		}
		if wake == nil {
			continue
		}
		select {
		case <-wake:
		case <-quiet:
			quiet, late = nil, time.After(20*time.Second)
			if index, ok := w.progress(); ok && index >= final().Index() {
				w.model.check(final())
				return
			}
			select { // from here on no wake-up may be missing
			case <-wake:
			case <-late:
				w.model.t.Errorf("%s: it was not woken for the newest state", w.model.name)
				return
			}
		case <-late:
			w.model.t.Errorf("%s: it was not woken for the newest state", w.model.name)
			return
		}
	}
}

// newWatcher has no position, a current one, or one that never was.
func newWatcher(t *testing.T, c *cluster, rnd *rand.Rand, groups []string) *watcher {
	group := groups[rnd.IntN(len(groups))]
	w := &watcher{model: model{t: t, at: map[string]Known{}, members: map[string]map[string]uint64{}}}
	known := Known{Group: group}
	if g := c.m.State().Group(group); g != nil && rnd.IntN(2) == 0 {
		known = c.known(group)
		if rnd.IntN(3) == 0 {
			known.Fingerprint++
		}
		w.model.start(g)
		w.model.at[group] = known
	}
	w.model.name = fmt.Sprintf("watcher that knew %+v", known)
	if rnd.IntN(2) == 0 {
		g := c.hub.Group(known)
		w.progress = g.Progress
		w.poll = func() ([]Step, <-chan struct{}) {
			step, wake := g.Poll()
			if wake != nil {
				return nil, wake
			}
			return []Step{step}, nil
		}
		return w
	}
	var all []Known
	if known.Revision != 0 {
		all = append(all, known)
	}
	p := c.hub.Prefix("w", all...)
	w.poll, w.progress = p.Poll, p.Progress
	w.model.name += ", of a prefix"
	return w
}

// yield lets other goroutines run for a while.
func yield(rnd *rand.Rand, most int) {
	for range rnd.IntN(most) {
		runtime.Gosched()
	}
}

// slowObserver delays the notification of a state.
type slowObserver struct{ rnd *rand.Rand }

func (o slowObserver) Applied(*fsm.Update) { yield(o.rnd, 200) }
func (o slowObserver) Restored(*fsm.State) { yield(o.rnd, 200) }

// Under random changes and restores, the steps of every watcher add up to the state,
// and it is woken for each.
func TestWatchersOfARandomHistory(t *testing.T) {
	rnd := seed.Rand(t)
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for round := 0; round < rounds && !t.Failed(); round++ {
		watchersRound(t, rand.New(rand.NewPCG(rnd.Uint64(), 1)))
	}
}

func watchersRound(t *testing.T, rnd *rand.Rand) {
	c := newCluster(t, slowObserver{rand.New(rand.NewPCG(rnd.Uint64(), 1))})
	groups := []string{"w0", "w1"}
	quiet := make(chan struct{})
	var final *fsm.State // before quiet is closed
	var all sync.WaitGroup
	var snapshot []byte
	for i := range 200 {
		switch what := rnd.IntN(60); {
		case what == 0:
			var buf bytes.Buffer
			if err := c.m.State().WriteSnapshot(&buf); err != nil {
				t.Fatal(err)
			}
			snapshot = buf.Bytes()
		case what == 1 && snapshot != nil: // the index goes on: no log goes back
			if err := c.m.Restore(bytes.NewReader(snapshot)); err != nil {
				t.Fatal(err)
			}
		case what < 35:
			var cmds []*fsmpb.Command
			for range 1 + rnd.IntN(3) {
				cmds = append(cmds, putAt(groups[rnd.IntN(2)], itoa(rnd.IntN(6)), "10.0.0.1:"+itoa(1+i+int(c.index))))
			}
			c.apply(cmds...)
		case what < 38:
			if g := groups[rnd.IntN(2)]; c.m.State().Group(g) != nil {
				cmds := []*fsmpb.Command{deleteGroup(g)}
				if rnd.IntN(2) == 0 { // made again at once
					cmds = append(cmds, putAt(g, itoa(rnd.IntN(6)), "10.0.0.3:"+itoa(1+i+int(c.index))))
				}
				c.apply(cmds...)
			}
		case what < 45:
			c.apply(remove(groups[rnd.IntN(2)], itoa(rnd.IntN(6))))
		case what < 53:
			w := newWatcher(t, c, rnd, groups)
			all.Go(func() { w.run(quiet, func() *fsm.State { return final }) })
		default:
			yield(rnd, 3000)
		}
	}
	// The groups exist in the end, whatever was restored.
	c.apply(putAt(groups[0], "last", "10.0.0.2:"+itoa(1+int(c.index))), putAt(groups[1], "last", "10.0.0.2:"+itoa(1+int(c.index))))
	final = c.m.State()
	close(quiet)
	all.Wait()
	c.hub.Close()
}
