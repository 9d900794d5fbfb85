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
	// ErrBusy: too many rings are waiting to be built; retry.
	ErrBusy = errors.New("too many rings are being built")
	// ErrTooLarge: the group's ring does not fit into the budget of memory.
	ErrTooLarge = errors.New("ring is larger than its memory")
)

const (
	// StaleLimit is how long a ring answers after a change that it does not have.
	StaleLimit = time.Second
	// IdleAfter is how long a ring is kept after its last request.
	IdleAfter = 5 * time.Minute
	// DefaultMemory is the budget of a Config without one.
	DefaultMemory = 512 << 20
	// MinMemory is the smallest budget: a group of a thousand members.
	MinMemory = 16 << 20
)

// Config of a cache.
type Config struct {
	// State returns the machine's current state. It is not called before the first
	// Get.
	State func() *fsm.State
	// Memory is the budget in bytes; 0 means DefaultMemory.
	Memory int64
	// Lag is the time since this node heard from the leader; nil: always 0.
	// It is not called before the first Get.
	Lag func() time.Duration
	// Logger gets errors of builds; nil: they are discarded.
	Logger *slog.Logger
}

// Cache keeps rings. It is an fsm.Observer.
type Cache struct {
	state  func() *fsm.State
	lag    func() time.Duration
	memory int64
	log    *slog.Logger
	start  time.Time
	ticks  atomic.Int64 // seconds since the start, for the order of use

	entries sync.Map // name → *entry

	mu        sync.Mutex // guards the rest, and the fields of entries below their comment
	classes   [2]class   // small rings and large ones
	queued    [3]int     // entries in the queues of both, by kind
	starved   *entry     // waits for memory: no other build begins
	used      int64      // bytes of the rings kept
	reserved  int64      // bytes of builds, beyond the rings that they replace
	evictable evictionOrder
	closed    bool
	verifyAt  time.Time // the next comparison of a ring is due

	build  func(*fsm.State, *fsm.Group, *View) (*View, error) // tests replace it
	stats  counters
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// smallPoints is the size up to which a ring takes less than a millisecond or so.
const smallPoints = 1 << 16

// maxQueue bounds the foreground queues together, and each background queue.
const maxQueue = 4096

// entry is one group's place in the cache.
type entry struct {
	name string
	view atomic.Pointer[View]

	lastUsed   atomic.Int64 // tick of the last request
	referenced atomic.Bool  // requested since it was built or got a second chance
	requested  atomic.Bool  // since the last build began
	scheduled  atomic.Bool  // a build is due, queued or under way
	buildTime  atomic.Int64 // nanoseconds of the last build

	// Guarded by Cache.mu.
	waiters       int
	queue         queueKind
	building      bool
	elem          *list.Element // in Cache.evictable; nil while the view is pinned
	dropped       bool          // from the cache
	done          chan struct{} // closed and replaced after every build
	err           error         // of the last build
	notBefore     time.Time     // of a background build
	timer         *time.Timer   // starts it
	buildRevision uint64        // of the view under construction
	nextMissed    *missed       // what that view will not have
}

// missed is the first batch of changes that a view does not have.
type missed struct {
	before uint64 // index of the state before the batch: the view has everything up to it
	at     int64  // the latest time of their commit, nanoseconds since the cache's start
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
	c := &Cache{state: cfg.State, lag: cfg.Lag, memory: cfg.Memory, log: cfg.Logger, build: build, start: time.Now()}
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

// Close cancels the builds in the queues and waits for those that run.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// now is the time since the cache's start, never 0.
func (c *Cache) now() int64 { return max(1, int64(time.Since(c.start))) }

// Freshness is what a reader requires of a ring, besides StaleLimit.
type Freshness struct {
	// MinIndex, if not 0: the ring has every change of the group up to this applied
	// index, which the state has reached.
	MinIndex uint64
	// MaxDelay, if not nil, bounds the delay of the ring: see Staleness.
	MaxDelay *time.Duration
}

// Staleness is how far a ring is behind; the zero value: it has every change.
type Staleness struct {
	// Delay is the time since the first change was committed that the ring lacks.
	Delay time.Duration
	// Index is the applied index up to which the ring has every change.
	Index uint64
}

// Get returns the ring of a group of the state, and its staleness. A ring that is
// fresh enough is returned without a lock or an allocation. Errors are ErrBusy,
// ErrTooLarge, fsm.ErrUnknownGroup if the group was deleted, and the cause of ctx.
func (c *Cache) Get(ctx context.Context, s *fsm.State, g *fsm.Group, fresh Freshness) (*View, Staleness, error) {
	if kept, ok := c.entries.Load(g.Name); ok {
		e := kept.(*entry)
		if v := e.view.Load(); v != nil {
			c.touch(e)
			if v.Revision >= g.Revision {
				return v, Staleness{}, nil
			}
			if staleness, ok := c.freshEnough(e, v, fresh); ok {
				if !e.scheduled.Load() {
					c.schedule(e)
				}
				return v, staleness, nil
			}
		}
	}
	for {
		v, err := c.wait(ctx, s, g)
		if err != nil {
			return nil, Staleness{}, err
		}
		st := c.staleness(v) // changes during the build
		if fresh.MaxDelay == nil || st.Delay <= *fresh.MaxDelay {
			return v, st, nil
		}
		if s = c.state(); s.Group(g.Name) == nil {
			return nil, Staleness{}, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, g.Name)
		}
		g = s.Group(g.Name)
	}
}

// staleness returns how far a ring is behind.
func (c *Cache) staleness(v *View) (st Staleness) {
	if m := v.missed.Load(); m != nil {
		st.Index = max(v.Index, m.before)
		st.Delay = time.Duration(max(0, c.now()-m.at))
	}
	return st
}

// touch notes a request of a ring that is kept.
func (c *Cache) touch(e *entry) {
	if tick := c.ticks.Load(); e.lastUsed.Load() != tick {
		e.lastUsed.Store(tick)
	}
	if !e.requested.Load() {
		e.requested.Store(true)
	}
	if !e.referenced.Load() {
		e.referenced.Store(true)
	}
}

// freshEnough reports whether a ring that is behind its group may be returned.
func (c *Cache) freshEnough(e *entry, v *View, fresh Freshness) (st Staleness, ok bool) {
	st = c.staleness(v)
	st.Index = max(st.Index, v.Index)
	if st.Index < fresh.MinIndex || fresh.MaxDelay != nil && st.Delay > *fresh.MaxDelay {
		return st, false
	}
	return st, st.Delay <= max(StaleLimit, time.Duration(e.buildTime.Load()))
}

// schedule schedules a background build of the next ring, unless there is one.
func (c *Cache) schedule(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduleLocked(e)
}

// wait waits for a ring that has every change of the state.
func (c *Cache) wait(ctx context.Context, s *fsm.State, g *fsm.Group) (*View, error) {
	for {
		e, done, err := c.join(g)
		if err != nil {
			return nil, err
		}
		if done == nil { // already built
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

// join queues a build of the group for a caller that waits for it. done is nil if
// the ring is built.
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
	if e.queue != foreground && !e.building && !c.enqueueLocked(e, classOf(g), foreground) {
		c.stats.busy.Add(1)
		return nil, nil, fmt.Errorf("%w: %d wait", ErrBusy, maxQueue)
	}
	c.entries.Store(g.Name, e)
	e.lastUsed.Store(c.ticks.Load())
	e.requested.Store(true)
	e.waiters++
	return e, e.done, nil
}

// leave ends a caller's wait, and returns its outcome.
func (c *Cache) leave(e *entry) (v *View, gone bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.waiters--
	v, gone = e.view.Load(), e.dropped
	c.dropEmptyLocked(e)
	return v, gone, e.err
}

// Applied marks the rings that are behind now, and schedules builds of those that
// were requested since their last build. It drops the rings of deleted groups.
func (c *Cache) Applied(u *fsm.Update) {
	for i := range u.Groups {
		if g := u.Groups[i].Next; g == nil {
			c.deleted(u.Groups[i].Prev.Name)
		} else if kept, ok := c.entries.Load(g.Name); ok {
			c.changed(kept.(*entry), g.Revision, u.Before)
		}
	}
}

// deleted drops the ring of a group. Its waiters get ErrUnknownGroup.
func (c *Cache) deleted(group string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, ok := c.entries.Load(group); ok {
		c.dropLocked(kept.(*entry))
	}
}

// changed notes a group's new revision, by changes after an index.
func (c *Cache) changed(e *entry, revision, before uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := e.view.Load()
	lacks := v != nil && v.Revision < revision && v.missed.Load() == nil
	willLack := e.building && e.buildRevision < revision && e.nextMissed == nil
	if lacks || willLack { // the first change only: this delays Apply
		first := &missed{before: before, at: c.now() - int64(c.lag())}
		if lacks {
			v.missed.Store(first)
		}
		if willLack {
			e.nextMissed = first
		}
	}
	if e.requested.Load() {
		c.scheduleLocked(e)
	}
}

// Restored drops all rings: the state was replaced.
func (c *Cache) Restored(*fsm.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Range(func(_, kept any) bool {
		c.dropLocked(kept.(*entry))
		return true
	})
}

// Peek returns the ring of a group that is kept, or nil. It is no request.
func (c *Cache) Peek(group string) *View {
	if kept, ok := c.entries.Load(group); ok {
		return kept.(*entry).view.Load()
	}
	return nil
}
