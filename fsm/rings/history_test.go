package rings

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// revisions records every revision of the groups, by fingerprint and revision: a
// restored state may have another group at a revision.
type revisions struct {
	mu     sync.Mutex
	groups map[key][]*fsm.Group
	// restores counts the beginnings and the ends of restores: while its value is
	// even and stays the same, no state is replaced by an older one.
	restores atomic.Uint64
}

type key struct {
	name     string
	revision uint64
}

func (r *revisions) add(g *fsm.Group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := key{g.Name, g.Revision}
	r.groups[k] = append(r.groups[k], g)
}

func (r *revisions) Applied(u *fsm.Update) {
	for _, c := range u.Groups {
		if c.Next != nil {
			r.add(c.Next)
		}
	}
}

func (r *revisions) Restored(s *fsm.State) {
	for g := range s.Groups {
		r.add(g)
	}
}

// sameMembers compares the view's members with the group's, as readers see them.
func sameMembers(v *View, g *fsm.Group) bool {
	if g.Len() != v.Ring.Len() {
		return false
	}
	i := 0
	for m := range g.Members {
		if got := v.Member(i); got.ID != m.ID || got.ModifiedIndex != m.ModifiedIndex || got.Addr != m.Addr || got.Weight != m.Weight || got.State != m.State {
			return false
		}
		i++
	}
	return true
}

// named checks that a view has the members of its group at its revision and
// fingerprint.
func (r *revisions) named(t *testing.T, name string, v *View) {
	// The machine publishes a state before it notifies observers.
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		r.mu.Lock()
		all := r.groups[key{name, v.Revision}]
		r.mu.Unlock()
		for _, g := range all {
			if g.Fingerprint() == v.Fingerprint && sameMembers(v, g) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Errorf("%q has no revision %d with fingerprint %016x and these members", name, v.Revision, v.Fingerprint)
			return
		}
	}
}

// reader requests the ring of a group with random freshness until the context ends.
type reader struct {
	t    *testing.T
	c    *cluster
	all  *revisions
	rnd  *rand.Rand
	name string
}

func (r *reader) run(ctx context.Context) {
	var last *View
	for ctx.Err() == nil {
		restores := r.all.restores.Load()
		s := r.c.m.State()
		g := s.Group(r.name)
		if g == nil {
			runtime.Gosched()
			continue
		}
		var fresh Freshness
		switch r.rnd.IntN(3) {
		case 0:
			fresh.MinIndex = s.Index()
		case 1:
			delay := time.Duration(r.rnd.IntN(1_000_000))
			fresh.MaxDelay = &delay
		}
		v, behind, err := r.c.cache.Get(ctx, s, g, fresh)
		if ctx.Err() != nil || errors.Is(err, fsm.ErrUnknownGroup) {
			continue
		}
		if err != nil {
			r.t.Error(err)
			return
		}
		if v != last {
			right(r.t, v)
			r.all.named(r.t, r.name, v)
		}
		last = v
		runtime.Gosched()
		if fresh.MinIndex != 0 && v.Index < fresh.MinIndex && v.Revision < g.Revision && restores%2 == 0 && restores == r.all.restores.Load() {
			r.t.Errorf("asked for index %d, got one of %d", fresh.MinIndex, v.Index)
		}
		if restores%2 == 0 && restores == r.all.restores.Load() && behind != (Staleness{}) && (behind.Index < fresh.MinIndex || behind.Index < v.Index || v.Revision < g.Revision && behind.Index >= g.Revision) {
			r.t.Errorf("has all up to %d: asked for %d, built at %d of revision %d, the group is at %d", behind.Index, fresh.MinIndex, v.Index, v.Revision, g.Revision)
		}
		if fresh.MaxDelay != nil && behind.Delay > *fresh.MaxDelay {
			r.t.Errorf("delay %v, at most %v", behind.Delay, *fresh.MaxDelay)
		}
	}
}

// Under concurrent changes, restores and requests, a view has the revision and the
// fingerprint of the members of its ring.
func TestViewNamesWhatItWasBuiltFrom(t *testing.T) {
	rnd := seed.Rand(t)
	all := &revisions{groups: make(map[key][]*fsm.Group)}
	c := newCluster(t, 4<<20, all)
	groups := []string{"a", "b", "c"}
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for i := range 6 {
		r := &reader{t, c, all, rand.New(rand.NewPCG(rnd.Uint64(), 1)), groups[i%len(groups)]}
		readers.Go(func() { r.run(ctx) })
	}
	rounds := 6000
	if testing.Short() {
		rounds = 1000
	}
	var snapshot []byte
	for i := range rounds {
		step(t, c, rnd, groups, i, &snapshot, all)
		for range rnd.IntN(10) {
			runtime.Gosched()
		}
		if t.Failed() {
			break
		}
	}
	for _, g := range groups {
		if c.m.State().Group(g) == nil {
			continue
		}
		v := c.newest(g)
		right(t, v)
		if want := c.m.State().Group(g); v.Revision != want.Revision || v.Fingerprint != want.Fingerprint() || !sameMembers(v, want) {
			t.Errorf("in the end: %q at %d, want %d", g, v.Revision, want.Revision)
		}
	}
	stop()
	readers.Wait()
	c.sums()
}

// step applies a random batch, or restores an older state now and then.
func step(t *testing.T, c *cluster, rnd *rand.Rand, groups []string, i int, snapshot *[]byte, all *revisions) {
	if what := rnd.IntN(200); what < 2 {
		var buf bytes.Buffer
		if err := c.m.State().WriteSnapshot(&buf); err != nil {
			t.Fatal(err)
		}
		*snapshot = buf.Bytes()
	} else if what == 2 && *snapshot != nil {
		all.restores.Add(1)
		defer all.restores.Add(1)
		if err := c.m.Restore(bytes.NewReader(*snapshot)); err != nil {
			t.Fatal(err)
		}
	}
	var cmds []*fsmpb.Command
	if g := groups[rnd.IntN(len(groups))]; rnd.IntN(40) == 0 && c.m.State().Group(g) != nil {
		cmds = append(cmds, deleteGroup(g)) // now and then it is made again at once
	}
	for n := range 1 + rnd.IntN(3) {
		g, id := groups[rnd.IntN(len(groups))], itoa(rnd.IntN(12))
		there := c.m.State().Group(g) != nil && c.m.State().Group(g).Member(id) != nil
		switch what := rnd.IntN(10); {
		case what < 5 || !there:
			cmds = append(cmds, putAt(g, id, "10.0.0.1:"+itoa(1000+3*i+n))) // no instance twice: a removed one is fenced
		case what < 7:
			cmds = append(cmds, remove(g, id))
		case what < 9:
			if len(cmds) == 0 {
				cmds = append(cmds, update(g, id, uint32(1+rnd.IntN(3)), ring.State(rnd.IntN(2))))
			}
		default:
			cmds = append(cmds, setGroup(g, 64<<rnd.IntN(2), uint32(rnd.IntN(2))*1250))
		}
	}
	c.apply(cmds...)
}

// Stats counts what happened.
func TestStats(t *testing.T) {
	c := newCluster(t, 0)
	c.fill("web", 10)
	c.fill("db", 10)
	if s := c.cache.Stats(); s != (Stats{Memory: DefaultMemory}) {
		t.Errorf("%+v of a cache without requests", s)
	}
	c.newest("web")
	release := c.hold(small)
	defer release()
	var all sync.WaitGroup
	all.Go(func() { c.newest("db") })
	c.waiters("db", 1)
	s := c.cache.Stats()
	if s.Builds != 1 || s.Took <= 0 || s.Rings != 1 || s.Bytes != c.cache.Peek("web").bytes() || s.Pending != 1+c.cache.classes[small].slots {
		t.Errorf("%+v", s)
	}
	release()
	all.Wait()
	c.until("nothing is pending", func() bool { return c.cache.classes[small].running == 0 })
	if s := c.cache.Stats(); s.Builds != 2 || s.Rings != 2 || s.Pending != 0 || s.Verified != 0 {
		t.Errorf("%+v", s)
	}
}
