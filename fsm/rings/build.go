package rings

import (
	"fmt"
	"slices"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// restFactor × the time of a build passes until the next one of the group that
// nobody waits for.
const restFactor = 3

// scheduleLocked has a build done that nobody waits for, when it is due. Where the
// queue is full there is none, until the ring is asked for again.
func (c *Cache) scheduleLocked(e *entry) {
	if e.gone || e.queued || e.building || e.later != nil || c.closed {
		return
	}
	g := c.state().Group(e.name)
	if v := e.view.Load(); g == nil || v == nil || v.Revision >= g.Revision {
		return
	}
	if rest := time.Until(e.notBefore); rest > 0 {
		e.later = time.AfterFunc(rest, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			e.later = nil
			c.scheduleLocked(e)
		})
		return
	}
	c.enqueueLocked(e, classOf(g))
}

// enqueueLocked puts an entry at the end of the queue; false when that is full.
func (c *Cache) enqueueLocked(e *entry, k int) bool {
	if len(c.classes[small].queue)+len(c.classes[large].queue) >= maxQueue || c.closed {
		return false
	}
	if e.later != nil {
		e.later.Stop()
		e.later = nil
	}
	e.queued = true
	c.classes[k].queue = append(c.classes[k].queue, e)
	c.pumpLocked(k)
	return true
}

// pumpLocked starts a builder where a slot is free.
func (c *Cache) pumpLocked(k int) {
	if l := &c.classes[k]; len(l.queue) > 0 && l.running < l.slots && !c.closed {
		l.running++
		c.wg.Go(func() { c.buildLoop(k) })
	}
}

// buildLoop builds what is queued until nothing is, or there is no memory for it
// before another build ends.
func (c *Cache) buildLoop(k int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.classes[k]
	for len(l.queue) > 0 && !c.closed {
		if !c.buildNextLocked(l) {
			break
		}
	}
	l.running--
}

// buildNextLocked builds the first of the queue. It returns false when there is no
// memory for it: then a build is running that ends with a look at the queues. The
// mutex is released while the ring is built.
func (c *Cache) buildNextLocked(l *class) bool {
	e := l.queue[0]
	s := c.state()
	g := s.Group(e.name)
	old := e.view.Load()
	stale := old != nil && g != nil && old.Revision < g.Revision
	if g == nil || e.gone || e.waiters == 0 && !stale {
		l.queue = l.queue[1:]
		e.queued = false
		c.finishLocked(e, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, e.name)) // or nobody waits for it
		return true
	}
	need := buildBytes(g)
	if need > c.memory { // it has grown
		l.queue = l.queue[1:]
		e.queued = false
		c.dropLocked(e)
		return true
	}
	if !c.makeRoomLocked(need, e) {
		if c.reserved > 0 {
			return false
		}
		c.forgetViewsLocked()
		old = nil
	}
	l.queue = l.queue[1:]
	e.queued, e.building = false, true
	e.target, e.next = g.Revision, 0
	e.asked.Store(false) // who waits is answered by this build
	c.reserved += need
	c.mu.Unlock()

	start := time.Now()
	v, err := build(s, g, old)
	took := time.Since(start)
	c.stats.built(took)

	c.mu.Lock()
	e.building = false
	c.reserved -= need
	e.notBefore = time.Now().Add(restFactor * took)
	e.took.Store(int64(took))
	if err != nil {
		c.log.Error("a ring cannot be built", "group", g.Name, "revision", g.Revision, "error", err)
	} else if !e.gone {
		c.publishLocked(e, v)
	}
	c.finishLocked(e, err)
	if e.asked.Load() {
		c.scheduleLocked(e)
	}
	if old != nil && v != nil {
		c.verifyLocked(e, v)
	}
	for k := range c.classes {
		c.pumpLocked(k) // there is memory again
	}
	return true
}

// publishLocked replaces the view of an entry.
func (c *Cache) publishLocked(e *entry, v *View) {
	if old := e.view.Load(); old != nil {
		c.used -= old.bytes()
	}
	c.used += v.bytes()
	e.missed.Store(e.next)
	e.view.Store(v)
}

// finishLocked tells those who wait that a build ended.
func (c *Cache) finishLocked(e *entry, err error) {
	e.err = err
	close(e.done)
	e.done = make(chan struct{})
	if e.view.Load() == nil && e.waiters == 0 {
		c.dropLocked(e)
	}
}

// makeRoomLocked drops rings until so many bytes are free. It returns false, and
// drops none, when the rings that nobody waits for are not enough.
func (c *Cache) makeRoomLocked(need int64, keep *entry) bool {
	free := c.memory - c.reserved - need // what the rings kept may take
	if c.used <= free {
		return true
	}
	var all []*entry
	left := c.used
	c.entries.Range(func(_, kept any) bool {
		e := kept.(*entry)
		if v := e.view.Load(); e != keep && v != nil && !e.building && e.waiters == 0 {
			all = append(all, e)
			left -= v.bytes()
		}
		return true
	})
	if left > free {
		return false
	}
	slices.SortFunc(all, func(a, b *entry) int {
		if a.again.Load() != b.again.Load() {
			if b.again.Load() {
				return -1
			}
			return 1
		}
		return int(a.used.Load() - b.used.Load())
	})
	// Some more go than have to, so that this is not done for every ring.
	goal := free - c.memory/16
	for _, e := range all {
		if c.used <= goal {
			break
		}
		c.dropLocked(e)
		c.stats.evicted.Add(1)
	}
	return true
}

// forgetViewsLocked makes room for a build that runs alone: the rings that
// readers wait to have replaced, and the one before its own, are in its way.
func (c *Cache) forgetViewsLocked() {
	c.entries.Range(func(_, kept any) bool {
		e := kept.(*entry)
		if v := e.view.Load(); v != nil {
			c.used -= v.bytes()
			e.view.Store(nil)
			c.stats.evicted.Add(1)
		}
		if e.waiters == 0 && !e.queued {
			c.dropLocked(e)
		}
		return true
	})
}

// dropLocked forgets a ring. A build that is under way publishes nothing.
func (c *Cache) dropLocked(e *entry) {
	if e.gone {
		return
	}
	e.gone = true
	if v := e.view.Load(); v != nil {
		c.used -= v.bytes()
	}
	if e.later != nil {
		e.later.Stop()
		e.later = nil
	}
	c.entries.CompareAndDelete(e.name, e)
	close(e.done)
	e.done = make(chan struct{})
}

// tickLoop advances the time of use, and drops what nobody asks for.
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

func (c *Cache) dropIdle(before int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Range(func(_, kept any) bool {
		if e := kept.(*entry); e.used.Load() <= before && e.waiters == 0 && !e.queued && !e.building {
			c.dropLocked(e)
		}
		return true
	})
}
