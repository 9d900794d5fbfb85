package rings

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// Errors of Get.
var (
	// ErrBusy: too many rings are waiting to be built; ask again.
	ErrBusy = errors.New("too many rings are being built")
	// ErrTooLarge: the group's ring does not fit into the budget of memory.
	ErrTooLarge = errors.New("ring is larger than its memory")
)

const (
	// StaleLimit is how long a ring answers after a change that it does not have.
	StaleLimit = time.Second
	// IdleAfter is how long a ring is kept that nobody asks for.
	IdleAfter = 5 * time.Minute
	// DefaultMemory is the budget of a Config without one.
	DefaultMemory = 512 << 20
	// MinMemory is the least budget: a group of a thousand members.
	MinMemory = 16 << 20
)

// Config of a cache.
type Config struct {
	// State returns the machine's present state. It is not called before the
	// first Get.
	State func() *fsm.State
	// Memory is the budget in bytes; 0 means DefaultMemory.
	Memory int64
	// Lag is how long ago this node heard from the leader; nil: always just now.
	// It is not called before the first Get.
	Lag func() time.Duration
	// Logger tells of rings that were built wrongly; nil: nobody is told.
	Logger *slog.Logger
}

// Cache is the rings that are asked for. It is an fsm.Observer.
type Cache struct {
	state  func() *fsm.State
	lag    func() time.Duration
	memory int64
	log    *slog.Logger
	start  time.Time
	ticks  atomic.Int64 // seconds since the start, for the order of use

	entries sync.Map // name → *entry

	mu       sync.Mutex // guards the rest, and what entries say that it guards
	classes  [2]class   // small rings and large ones
	waiting  int        // entries in the readers' queues
	starved  *entry     // waits for memory: no other build begins
	used     int64      // bytes of the rings kept
	reserved int64      // bytes of building, beyond the rings that are replaced
	kept     order
	closed   bool
	verify   turns

	stats  counters
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// smallPoints is the size up to which a ring takes less than a millisecond or so.
const smallPoints = 1 << 16

// maxQueue bounds the rings that readers wait for, and those that nobody does.
const maxQueue = 4096

// entry is one group's place in the cache.
type entry struct {
	name string
	view atomic.Pointer[View]

	used      atomic.Int64 // tick of the last question
	again     atomic.Bool  // asked for since it was built, or was last passed over
	asked     atomic.Bool  // since the last build began
	scheduled atomic.Bool  // a build is due, queued or under way
	took      atomic.Int64 // nanoseconds of the last build

	// Guarded by Cache.mu.
	waiters   int
	queue     queueKind
	building  bool
	place     *list.Element // in Cache.kept, where the view may be dropped
	gone      bool          // dropped from the cache
	done      chan struct{} // closed and replaced after every build
	err       error         // of the last build
	notBefore time.Time     // of a build that nobody waits for
	later     *time.Timer   // starts it
	target    uint64        // revision of the view under construction
	next      *missed       // what that will not have
}

// missed is the first changes that a view does not have: those of one batch.
type missed struct {
	before uint64 // index of the state before the batch: the view has everything up to it
	at     int64  // when the leader committed them at the latest, nanoseconds since the cache's start
}

// New returns an empty cache, which Close ends.
func New(cfg Config) *Cache {
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	procs := runtime.GOMAXPROCS(0)
	if cfg.Lag == nil {
		cfg.Lag = func() time.Duration { return 0 }
	}
	c := &Cache{state: cfg.State, lag: cfg.Lag, memory: cfg.Memory, log: cfg.Logger, start: time.Now()}
	c.classes[small].slots, c.classes[large].slots = max(1, procs-procs/2), max(1, procs/2)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Go(c.tickLoop)
	return c
}

const (
	small = iota
	large
)

func classOf(g *fsm.Group) int {
	if g.Points() <= smallPoints {
		return small
	}
	return large
}

// Close gives up the builds that have not begun and waits for those that have.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// now is the time since the cache's start, never 0.
func (c *Cache) now() int64 { return max(1, int64(time.Since(c.start))) }

// Need is how new a ring has to be; the zero value takes the ring before for as
// long as StaleLimit says.
type Need struct {
	// Index, if not 0: the ring has every change of the group up to this applied
	// index, which the state has reached.
	Index uint64
	// Delay, if not nil, bounds how long ago a change was applied that the ring
	// does not have.
	Delay *time.Duration
}

// Behind is what a ring does not have; the zero value: it has everything.
type Behind struct {
	// Delay is how long ago the first change was committed that it lacks.
	Delay time.Duration
	// Index up to which it has everything.
	Index uint64
}

// Get returns the ring of a group of the state, and what it does not have. On the way of a ring that is kept it takes no
// lock and does not allocate. Errors are ErrBusy, ErrTooLarge, fsm.ErrUnknownGroup
// when the group went meanwhile, and the cause of ctx.
func (c *Cache) Get(ctx context.Context, s *fsm.State, g *fsm.Group, need Need) (*View, Behind, error) {
	if kept, ok := c.entries.Load(g.Name); ok {
		e := kept.(*entry)
		if v := e.view.Load(); v != nil {
			c.touch(e)
			if v.Revision >= g.Revision {
				return v, Behind{}, nil
			}
			if behind, ok := c.serves(e, v, need); ok {
				if !e.scheduled.Load() {
					c.want(e)
				}
				return v, behind, nil
			}
		}
	}
	for {
		v, err := c.wait(ctx, s, g)
		if err != nil {
			return nil, Behind{}, err
		}
		b := c.behind(v) // changes that came while it was built
		if need.Delay == nil || b.Delay <= *need.Delay {
			return v, b, nil
		}
		if s = c.state(); s.Group(g.Name) == nil {
			return nil, Behind{}, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, g.Name)
		}
		g = s.Group(g.Name)
	}
}

// behind tells what a ring does not have; the zero value if it has everything.
func (c *Cache) behind(v *View) (b Behind) {
	if m := v.missed.Load(); m != nil {
		b.Index = max(v.Index, m.before)
		b.Delay = time.Duration(max(0, c.now()-m.at))
	}
	return b
}

// touch notes that a ring that is kept was asked for.
func (c *Cache) touch(e *entry) {
	if tick := c.ticks.Load(); e.used.Load() != tick {
		e.used.Store(tick)
	}
	if !e.asked.Load() {
		e.asked.Store(true)
	}
	if !e.again.Load() {
		e.again.Store(true)
	}
}

// serves tells whether a ring that is behind its group is new enough.
func (c *Cache) serves(e *entry, v *View, need Need) (b Behind, ok bool) {
	b = c.behind(v)
	b.Index = max(b.Index, v.Index)
	if b.Index < need.Index || need.Delay != nil && b.Delay > *need.Delay {
		return b, false
	}
	return b, b.Delay <= max(StaleLimit, time.Duration(e.took.Load()))
}

// want has the next ring built, unless that is on its way.
func (c *Cache) want(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduleLocked(e)
}

// wait waits for a ring that has everything that the state has.
func (c *Cache) wait(ctx context.Context, s *fsm.State, g *fsm.Group) (*View, error) {
	for {
		e, done, err := c.join(g)
		if err != nil {
			return nil, err
		}
		if done == nil { // built meanwhile
			return e.view.Load(), nil
		}
		select {
		case <-done:
		case <-ctx.Done():
		case <-c.ctx.Done():
		}
		v, gone, err := c.leave(e)
		switch {
		case v != nil && !gone && (v.Revision >= g.Revision || v.Index >= s.Index()):
			return v, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case c.ctx.Err() != nil:
			return nil, fmt.Errorf("%w: the node is closing", ErrBusy)
		case gone || c.state().Index() < s.Index(): // the group was deleted, or a snapshot replaced the state
			if s = c.state(); s.Group(g.Name) == nil {
				return nil, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, g.Name)
			}
			g = s.Group(g.Name)
		case err != nil:
			return nil, err
		}
	}
}

// join queues a build of the group for a caller that waits for it. done is nil
// when the ring is there.
func (c *Cache) join(g *fsm.Group) (e *entry, done <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, ok := c.entries.Load(g.Name); ok {
		e = kept.(*entry)
	} else {
		e = &entry{name: g.Name, done: make(chan struct{})}
	}
	if v := e.view.Load(); v != nil && v.Revision >= g.Revision {
		return e, nil, nil
	}
	if need := buildBytes(g); need > c.memory {
		return nil, nil, fmt.Errorf("%w: building that of group %q takes about %d MB, -ring-memory is %d MB", ErrTooLarge, g.Name, need>>20, c.memory>>20)
	}
	if e.queue != forReaders && !e.building && !c.enqueueLocked(e, classOf(g), forReaders) {
		c.stats.busy.Add(1)
		return nil, nil, fmt.Errorf("%w: %d wait", ErrBusy, maxQueue)
	}
	c.entries.Store(g.Name, e)
	e.used.Store(c.ticks.Load())
	e.asked.Store(true)
	e.waiters++
	return e, e.done, nil
}

// leave ends a caller's wait, and returns what became of it.
func (c *Cache) leave(e *entry) (v *View, gone bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.waiters--
	v, gone = e.view.Load(), e.gone
	c.dropEmptyLocked(e)
	return v, gone, e.err
}

// Applied notes which rings are behind now, and has those built that were asked
// for since their last build. Rings of groups that were deleted go.
func (c *Cache) Applied(u *fsm.Update) {
	for i := range u.Groups {
		if g := u.Groups[i].Next; g == nil {
			c.deleted(u.Groups[i].Prev.Name)
		} else if kept, ok := c.entries.Load(g.Name); ok {
			c.changed(kept.(*entry), g.Revision, u.Before)
		}
	}
}

// deleted drops the ring of a group. Those who wait for it hear that it is gone.
func (c *Cache) deleted(group string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, ok := c.entries.Load(group); ok {
		c.dropLocked(kept.(*entry))
	}
}

// changed notes that a group came to a revision, by changes after an index.
func (c *Cache) changed(e *entry, revision, before uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := e.view.Load()
	lacks := v != nil && v.Revision < revision && v.missed.Load() == nil
	willLack := e.building && e.target < revision && e.next == nil
	if lacks || willLack { // the first change only: this is on the way of Apply
		first := &missed{before: before, at: c.now() - int64(c.lag())}
		if lacks {
			v.missed.Store(first)
		}
		if willLack {
			e.next = first
		}
	}
	if e.asked.Load() {
		c.scheduleLocked(e)
	}
}

// Restored drops all rings: another state took over.
func (c *Cache) Restored(*fsm.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Range(func(_, kept any) bool {
		c.dropLocked(kept.(*entry))
		return true
	})
}

// Peek returns the ring of a group that is kept, or nil. It is no question.
func (c *Cache) Peek(group string) *View {
	if kept, ok := c.entries.Load(group); ok {
		return kept.(*entry).view.Load()
	}
	return nil
}
