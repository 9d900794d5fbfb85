package rings

import (
	"fmt"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// cooldownFactor × the time of a build passes before a background build of the group.
const cooldownFactor = 3

// class is the builds of small rings, or of large ones.
type class struct {
	queues  [3][]*entry // by kind; no entry is in that of notQueued
	running int
	slots   int
}

// queueKind says in which queue an entry is.
type queueKind uint8

const (
	notQueued queueKind = iota
	background
	foreground // readers wait for these; they go first
)

// first returns the entry to build next, or nil. It skips entries that have left the
// queue.
func (l *class) first() *entry {
	for kind := foreground; kind != notQueued; kind-- {
		for q := &l.queues[kind]; len(*q) > 0; *q = (*q)[1:] {
			if e := (*q)[0]; e.queue == kind {
				return e
			}
		}
	}
	return nil
}

// scheduleLocked queues a background build when it is due. If the queue is full, the
// next request tries again.
func (c *Cache) scheduleLocked(e *entry) {
	if e.dropped || e.queue != notQueued || e.building || e.timer != nil || c.closed {
		return
	}
	g := c.state().Group(e.name)
	if v := e.view.Load(); g == nil || v == nil || v.Revision >= g.Revision {
		return
	}
	if rest := time.Until(e.notBefore); rest > 0 {
		e.scheduled.Store(true)
		e.timer = time.AfterFunc(rest, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			e.timer = nil
			e.scheduled.Store(false)
			c.scheduleLocked(e)
		})
		return
	}
	c.enqueueLocked(e, classOf(g), background)
}

// enqueueLocked appends an entry to a queue; false if that is full.
func (c *Cache) enqueueLocked(e *entry, k int, kind queueKind) bool {
	l := &c.classes[k]
	if c.closed || kind == foreground && c.queued[kind] >= maxQueue || kind == background && len(l.queues[kind]) >= maxQueue {
		return false
	}
	c.stopTimerLocked(e)
	c.moveLocked(e, kind)
	e.scheduled.Store(true)
	l.queues[kind] = append(l.queues[kind], e)
	c.pumpLocked(k)
	return true
}

// moveLocked counts an entry in another queue.
func (c *Cache) moveLocked(e *entry, kind queueKind) {
	c.queued[e.queue]--
	c.queued[kind]++
	e.queue = kind
}

// dequeueLocked removes an entry from its queue.
func (c *Cache) dequeueLocked(e *entry) {
	c.moveLocked(e, notQueued)
	e.scheduled.Store(false)
	if c.starved == e {
		c.starved = nil
	}
}

// pumpLocked starts a builder if a slot is free.
func (c *Cache) pumpLocked(k int) {
	if l := &c.classes[k]; l.running < l.slots && !c.closed && l.first() != nil {
		l.running++
		c.wg.Go(func() { c.buildLoop(k) })
	}
}

func (c *Cache) pumpAllLocked() {
	for k := range c.classes {
		c.pumpLocked(k)
	}
}

// buildLoop builds until the queues are empty, or memory has to wait for another
// build to end.
func (c *Cache) buildLoop(k int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.classes[k]
	for !c.closed && c.buildNextLocked(l) {
	}
	l.running--
}

// buildNextLocked builds the first entry of the queues. It returns false if there is
// none, or no memory for it: then another build runs, which looks at the queues when
// it ends. The mutex is released during the build.
func (c *Cache) buildNextLocked(l *class) bool {
	e := l.first()
	if e == nil || c.starved != nil && c.starved != e {
		return false
	}
	s := c.state()
	g := s.Group(e.name)
	old := e.view.Load()
	stale := old != nil && g != nil && old.Revision < g.Revision
	if g == nil || e.dropped || e.waiters == 0 && !stale {
		c.dequeueLocked(e)
		c.finishLocked(e, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, e.name)) // or nobody waits
		return true
	}
	need := buildBytes(g)
	if need > c.memory { // it has grown
		c.dequeueLocked(e)
		c.dropLocked(e)
		return true
	}
	if old != nil { // the replaced ring's memory is a part of it
		need = max(need-old.bytes(), need/buildFactor)
	}
	c.pinLocked(e)
	room := c.makeRoomLocked(need)
	if !room && c.reserved == 0 { // without the previous ring there is room
		c.used -= old.bytes()
		e.view.Store(nil)
		old, need = nil, buildBytes(g)
		room = c.makeRoomLocked(need)
	}
	if !room {
		c.unpinLocked(e)
		if e.queue == foreground {
			c.starved = e // the next free memory is reserved for it
			return false
		}
		c.dequeueLocked(e) // a background build
		return true
	}
	c.dequeueLocked(e)
	e.building, e.buildRevision, e.nextMissed = true, g.Revision, nil
	e.scheduled.Store(true)
	e.requested.Store(false) // this build answers the waiters
	c.reserved += need
	c.pumpAllLocked() // others may have waited for its memory
	c.mu.Unlock()

	start := time.Now()
	v, err := c.build(s, g, old)
	took := time.Since(start)
	c.stats.built(took)

	c.mu.Lock()
	e.building = false
	e.scheduled.Store(false)
	c.reserved -= need
	e.notBefore = time.Now().Add(cooldownFactor * took)
	e.buildTime.Store(int64(took))
	switch {
	case err != nil:
		c.log.Error("ring build failed", "group", g.Name, "revision", g.Revision, "error", err)
		c.unpinLocked(e)
	case !e.dropped:
		c.publishLocked(e, v)
	}
	c.finishLocked(e, err)
	if e.requested.Load() {
		c.scheduleLocked(e)
	}
	if old != nil && v != nil {
		c.verifyLocked(e, v)
	}
	c.pumpAllLocked() // its memory is free
	return true
}

// publishLocked replaces the view of an entry.
func (c *Cache) publishLocked(e *entry, v *View) {
	old := e.view.Load()
	if old != nil {
		c.used -= old.bytes()
	}
	c.used += v.bytes()
	v.missed.Store(e.nextMissed)
	e.view.Store(v)
	e.referenced.Store(old != nil)
	c.unpinLocked(e)
}

// finishLocked wakes the waiters after a build.
func (c *Cache) finishLocked(e *entry, err error) {
	e.err = err
	close(e.done)
	e.done = make(chan struct{})
	c.dropEmptyLocked(e)
}

// dropEmptyLocked drops an entry without a ring, waiters or a build.
func (c *Cache) dropEmptyLocked(e *entry) {
	if e.view.Load() == nil && e.waiters == 0 && e.queue == notQueued && !e.building {
		c.dropLocked(e)
	}
}

// dropLocked drops an entry. A build that runs publishes nothing.
func (c *Cache) dropLocked(e *entry) {
	if e.dropped {
		return
	}
	e.dropped = true
	c.pinLocked(e)
	if v := e.view.Load(); v != nil {
		c.used -= v.bytes()
	}
	c.stopTimerLocked(e)
	c.entries.CompareAndDelete(e.name, e)
	close(e.done)
	e.done = make(chan struct{})
}

func (c *Cache) stopTimerLocked(e *entry) {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
		e.scheduled.Store(false)
	}
}

// tickLoop advances the clock of requests, and drops idle rings.
func (c *Cache) tickLoop() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		if tick := c.ticks.Add(1); tick%10 == 0 {
			c.dropIdle(tick - int64(IdleAfter/time.Second))
		}
	}
}

// dropIdle drops rings without a request since a tick. It holds the mutex for one
// ring at a time, because they may be many.
func (c *Cache) dropIdle(before int64) {
	c.entries.Range(func(_, kept any) bool {
		if e := kept.(*entry); e.lastUsed.Load() <= before {
			c.mu.Lock()
			if e.lastUsed.Load() <= before && e.waiters == 0 && e.queue == notQueued && !e.building {
				c.dropLocked(e)
			}
			c.mu.Unlock()
		}
		return true
	})
}
