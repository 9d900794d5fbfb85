package fsm

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/werbenhu/registry/ring"
)

// RingView is a group's ring with the members that it was built from. It
// never changes.
type RingView struct {
	Ring *ring.Ring
	// Revision of the group that the ring was built from, and the applied
	// index of the state in which the group was found at that revision.
	Revision uint64
	Index    uint64

	members []*Member // by the ring's member index

	once    sync.Once
	encoded any
}

// Encoded returns what encode makes of the view; it is called once.
func (v *RingView) Encoded(encode func(*RingView) any) any {
	v.once.Do(func() { v.encoded = encode(v) })
	return v.encoded
}

// Member returns the member with the ring's index i.
func (v *RingView) Member(i int) *Member { return v.members[i] }

// ringCell is where a group's ring is published. All versions of a group
// share one, so a ring outlives the state that asked for it.
type ringCell struct {
	name      string
	view      atomic.Pointer[RingView]
	feed      feed                        // of the rings
	revisions feed                        // of the group's revisions, ahead of the rings
	lastJoin  atomic.Pointer[GroupChange] // several of them as one, up to the view
	urge      chan struct{}               // holds one: somebody waits for this ring
	pace      paces                       // of this group alone

	mu       sync.Mutex    // guards the rest
	building bool          // a goroutine builds this ring
	target   uint64        // the revision to build
	gone     bool          // a restore replaced the group: no ring comes any more
	wanted   bool          // a watcher of revisions waits for the next ring
	built    chan struct{} // closed and replaced at every publication
}

// ringBuilder builds rings away from the apply path: at most one build at a
// time for a group, at most one for two processors in all. A group that
// changes during its build is built once more, from its newest revision.
//
// A change after a quiet moment is built at once if someone watches rings, and
// otherwise when the answer to it and what is told of it are on their way, which
// building would hold up. Under lasting change the builds together take no more
// than 4 % of the processors, so that a registration costs the cluster a log
// entry and not three rings: several changes of a group then go into one build.
// With watchers waiting for its next step, a group has three times that. Rings
// that a reader waits for are not held back. A small ring waits for no large
// one: they have slots of their own.
type ringBuilder struct {
	machine *Machine
	slots   chan struct{}
	small   chan struct{} // slots of rings of at most smallPoints
	pace    paces
	hub     hub // of rings

	counters ringCounters

	mu     sync.Mutex // guards closed against wg.Add
	closed bool
	wg     sync.WaitGroup

	ctx    context.Context // ends with close
	cancel context.CancelFunc
}

// settleTime is what the ring of a group waits for that nobody watches or asks
// for. Three nodes on two processors have told all watchers of a change by then.
const settleTime = 10 * time.Millisecond

// buildBurst is the time that builds may take at once after a quiet moment,
// before they are held to their share.
const buildBurst = 100 * time.Millisecond

// pacer holds work to a share of the time. Its clock decides when work is
// done, never what the state is.
type pacer struct {
	share float64 // of one processor's time, above 0
	burst time.Duration

	mu   sync.Mutex // guards free
	free time.Time  // when the work done so far is paid for
}

// owed is how long to wait before there is time for more work.
func (p *pacer) owed() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.free)
}

// wait waits for that long or until somebody urges; false when ctx ended.
func wait(ctx context.Context, urge <-chan struct{}, owed time.Duration) bool {
	if owed <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(owed)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-urge:
		return true
	case <-ctx.Done():
		return false
	}
}

// spent accounts for work.
func (p *pacer) spent(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	saved := time.Now().Add(-time.Duration(float64(p.burst) / p.share))
	if p.free.Before(saved) {
		p.free = saved
	}
	p.free = p.free.Add(time.Duration(float64(d) / p.share))
}

// paces holds builds to a share, and to a larger one those of groups that are
// watched. Both shares are charged for all builds.
type paces struct{ quiet, watched pacer }

func newPaces() paces {
	procs := float64(runtime.GOMAXPROCS(0))
	return paces{quiet: pacer{share: procs / 25, burst: buildBurst}, watched: pacer{share: procs / 8, burst: buildBurst}}
}

func (p *paces) owed(watched bool) time.Duration {
	if watched {
		return p.watched.owed()
	}
	return p.quiet.owed()
}

func (p *paces) spent(d time.Duration) {
	p.quiet.spent(d)
	p.watched.spent(d)
}

// buildLimit is the most that a build is charged for: some three times what it
// takes on an idle processor. What is beyond went to other work of the machine,
// and a preemption of half a second must not hold the group back for many.
func buildLimit(points int) time.Duration {
	return 100*time.Microsecond + time.Duration(points)*30*time.Nanosecond
}

// smallPoints is the size up to which a ring takes less than a millisecond or so.
const smallPoints = 1 << 16

func newRingBuilder(m *Machine) *ringBuilder {
	procs := runtime.GOMAXPROCS(0)
	b := &ringBuilder{machine: m, slots: make(chan struct{}, max(1, procs/2)), small: make(chan struct{}, procs), pace: newPaces()}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

func (b *ringBuilder) newCell(name string) *ringCell {
	return &ringCell{
		name: name, built: make(chan struct{}), urge: make(chan struct{}, 1), pace: newPaces(),
	}
}

// wake closes channels that many may wait on, beside the goroutine that applies.
func (b *ringBuilder) wake(wakes []chan struct{}) {
	wakes = slices.DeleteFunc(wakes, func(wake chan struct{}) bool { return wake == nil })
	if len(wakes) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		closeAll(wakes...)
		return
	}
	b.wg.Go(func() { closeAll(wakes...) })
}

func (b *ringBuilder) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
}

// retire tells those who wait for this ring that another state took over.
func (c *ringCell) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	close(c.built)
	c.built = make(chan struct{})
	c.feed.wakeAll()
	c.revisions.wakeAll()
}

// awaitRing returns a channel that is closed at the next publication of a ring;
// with hurry its build does not wait for its turn. The caller looks at the ring
// once more before it waits.
func (c *ringCell) awaitRing(hurry bool) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if hurry {
		c.hurry() // under the lock: a build that ends takes urges back
	}
	c.wanted = true
	return c.built
}

// hurry lets the ring's next build not wait for its turn.
func (c *ringCell) hurry() {
	select {
	case c.urge <- struct{}{}:
	default:
	}
}

// build sees to it that the group's ring reaches its revision.
func (b *ringBuilder) build(g *Group) {
	c := g.cell
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = g.Revision
	if c.building {
		return
	}
	// A build that was under way may have seen the state before this call came:
	// the same ring again would be a step that leads nowhere.
	if v := c.view.Load(); v != nil && v.Revision >= g.Revision {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	c.building = true
	b.counters.pending.Add(1)
	b.wg.Go(func() { b.run(c) })
}

// admit waits for the turn of a build and takes a slot, which it returns; nil
// when the builder is closing. A group's first ring is due at once, because a
// node that starts has all to build, and so is one that somebody waits for:
// pacing is for changes that nobody has asked about. watched says that someone
// watched the ring before this one: who was told of it has had no time to ask for
// the next.
func (b *ringBuilder) admit(c *ringCell, watched bool) chan struct{} {
	if c.view.Load() != nil {
		watched = watched || c.feed.awaited()
		owed := max(b.pace.owed(watched), c.pace.owed(watched))
		if !watched {
			owed = max(owed, settleTime)
		}
		if !wait(b.ctx, c.urge, owed) {
			return nil
		}
	}
	slots := b.slots
	if g := b.machine.State().Group(c.name); g != nil && g.weight*uint64(g.Params.VirtualNodes) <= smallPoints {
		slots = b.small
	}
	select {
	case slots <- struct{}{}:
	case <-b.ctx.Done():
		return nil
	}
	if b.ctx.Err() != nil {
		<-slots
		return nil
	}
	return slots
}

// run builds until the ring is at the newest revision.
func (b *ringBuilder) run(c *ringCell) {
	defer b.counters.pending.Add(-1)
	watched := false
	for {
		slots := b.admit(c, watched)
		if slots == nil {
			return // closing; whoever waits for the ring has a context
		}
		start := time.Now()
		view := b.buildView(c)
		var change *GroupChange
		if view != nil { // only this goroutine publishes here
			change = changeBetween(c.name, c.view.Load(), view)
		}
		took := time.Since(start)
		b.counters.built(took)
		if view != nil {
			took = min(took, buildLimit(view.Ring.NumPoints()))
		}
		c.pace.spent(took)
		b.pace.spent(min(took, buildBurst/5)) // a large ring delays itself, not the others
		<-slots
		var wakes []chan struct{}
		c.mu.Lock()
		if view != nil {
			watched = c.feed.awaited()
			c.view.Store(view)
			c.lastJoin.Store(nil)
			if c.wanted {
				wakes = append(wakes, b.machine.hub.publish(c.name))
				c.wanted = false
			}
			wakes = append(wakes, c.feed.publish(change, b.machine.State().GroupCount(), view.Revision), b.hub.publish(c.name))
		}
		c.gone = c.gone || view == nil // a restore may have retired it meanwhile
		wakes = append(wakes, c.built)
		c.built = make(chan struct{})
		done := view == nil || view.Revision >= c.target
		if done {
			c.building = false
			select {
			case <-c.urge: // of someone who has that ring now
			default:
			}
		}
		c.mu.Unlock()
		closeAll(wakes...)
		if done {
			return
		}
	}
}

// buildView builds the ring of the group's newest revision. It returns nil
// when the group is not of this state any more (a restore replaced it).
func (b *ringBuilder) buildView(c *ringCell) *RingView {
	s := b.machine.State()
	g := s.Group(c.name)
	if g == nil || g.cell != c {
		return nil
	}
	view := &RingView{Revision: g.Revision, Index: s.index, members: make([]*Member, 0, g.Len())}
	members := make([]ring.Member, 0, g.Len())
	for m := range g.Members {
		view.members = append(view.members, m)
		members = append(members, ring.Member{ID: m.ID, Weight: int(m.Weight), State: m.State})
	}
	var err error
	if old := c.view.Load(); old != nil {
		view.Ring, err = old.Ring.With(g.Params, members)
	} else {
		view.Ring, err = ring.New(g.Params, members)
	}
	if err != nil {
		// Every limit of the ring was checked before the entry took effect.
		panic(fmt.Errorf("fsm: ring of group %q at revision %d: %w", g.Name, g.Revision, err))
	}
	return view
}

// Ring returns the group's ring as it was last built, which may be a moment
// behind the state; nil before the first build is done. It takes no lock and
// does not allocate.
func (g *Group) Ring() *RingView { return g.cell.view.Load() }

// WaitRing returns a ring that holds everything up to the applied index: built
// from the group's revision in this state, or from a state that late. It
// returns [ErrReplaced] when a snapshot replaced this state: the caller takes
// the group from the present one.
func (g *Group) WaitRing(ctx context.Context, index uint64) (*RingView, error) {
	for {
		if v := g.ringFrom(index); v != nil {
			return v, nil
		}
		g.cell.mu.Lock()
		built, gone := g.cell.built, g.cell.gone
		g.cell.mu.Unlock()
		if v := g.ringFrom(index); v != nil {
			return v, nil
		}
		if gone {
			return nil, fmt.Errorf("ring of group %q: %w", g.Name, ErrReplaced)
		}
		g.cell.hurry()
		select {
		case <-built:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (g *Group) ringFrom(index uint64) *RingView {
	v := g.cell.view.Load()
	if v == nil || v.Revision < g.Revision && v.Index < index {
		return nil
	}
	return v
}
