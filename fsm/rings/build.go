package rings

import (
	"fmt"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// restFactor × the time of a build passes until the next one of the group that
// nobody waits for.
const restFactor = 3

// class is the builds of small rings, or of large ones.
type class struct {
	readers []*entry // in the order of demand; they go first
	idle    []*entry // nobody waits for these
	running int
	slots   int
}

// queueKind says in which queue an entry is.
type queueKind uint8

const (
	notQueued queueKind = iota
	forNobody
	forReaders
)

// first returns the entry to build next, or nil. Entries that left a queue, or went
// to the other one, are skipped.
func (l *class) first() *entry {
	for ; len(l.readers) > 0; l.readers = l.readers[1:] {
		if e := l.readers[0]; e.queue == forReaders {
			return e
		}
	}
	for ; len(l.idle) > 0; l.idle = l.idle[1:] {
		if e := l.idle[0]; e.queue == forNobody {
			return e
		}
	}
	return nil
}

// scheduleLocked has a build done that nobody waits for, when it is due. Where the
// queue is full there is none, until the ring is asked for again.
func (c *Cache) scheduleLocked(e *entry) {
	if e.gone || e.queue != notQueued || e.building || e.later != nil || c.closed {
		return
	}
	g := c.state().Group(e.name)
	if v := e.view.Load(); g == nil || v == nil || v.Revision >= g.Revision {
		return
	}
	if rest := time.Until(e.notBefore); rest > 0 {
		e.scheduled.Store(true)
		e.later = time.AfterFunc(rest, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			e.later = nil
			e.scheduled.Store(false)
			c.scheduleLocked(e)
		})
		return
	}
	c.enqueueLocked(e, classOf(g), forNobody)
}

// enqueueLocked puts an entry at the end of a queue; false when that is full.
func (c *Cache) enqueueLocked(e *entry, k int, kind queueKind) bool {
	l := &c.classes[k]
	if c.closed || kind == forReaders && c.waiting >= maxQueue || kind == forNobody && len(l.idle) >= maxQueue {
		return false
	}
	c.stopLaterLocked(e)
	e.queue = kind
	e.scheduled.Store(true)
	if kind == forReaders {
		c.waiting++
		l.readers = append(l.readers, e)
	} else {
		l.idle = append(l.idle, e)
	}
	c.pumpLocked(k)
	return true
}

// dequeueLocked takes an entry out of its queue.
func (c *Cache) dequeueLocked(e *entry) {
	if e.queue == forReaders {
		c.waiting--
	}
	e.queue = notQueued
	e.scheduled.Store(false)
	if c.starved == e {
		c.starved = nil
	}
}

// pumpLocked starts a builder where a slot is free.
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

// buildLoop builds what is queued until nothing is, or there is no memory for it
// before another build ends.
func (c *Cache) buildLoop(k int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.classes[k]
	for !c.closed && c.buildNextLocked(l) {
	}
	l.running--
}

// buildNextLocked builds the first of the queue. It returns false when there is
// none, or no memory for it: then a build is running that ends with a look at the
// queues. The mutex is released while the ring is built.
func (c *Cache) buildNextLocked(l *class) bool {
	e := l.first()
	if e == nil || c.starved != nil && c.starved != e {
		return false
	}
	s := c.state()
	g := s.Group(e.name)
	old := e.view.Load()
	stale := old != nil && g != nil && old.Revision < g.Revision
	if g == nil || e.gone || e.waiters == 0 && !stale {
		c.dequeueLocked(e)
		c.finishLocked(e, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, e.name)) // or nobody waits for it
		return true
	}
	need := buildBytes(g)
	if need > c.memory { // it has grown
		c.dequeueLocked(e)
		c.dropLocked(e)
		return true
	}
	if old != nil { // what is replaced is a part of it
		need = max(need-old.bytes(), need/buildFactor)
	}
	c.unplaceLocked(e)
	room := c.makeRoomLocked(need)
	if !room && c.reserved == 0 { // only the ring before is in the way
		c.used -= old.bytes()
		e.view.Store(nil)
		old, need = nil, buildBytes(g)
		room = c.makeRoomLocked(need)
	}
	if !room {
		c.placeLocked(e)
		if e.queue == forReaders {
			c.starved = e // the memory that comes free is for it
			return false
		}
		c.dequeueLocked(e) // nobody waits
		return true
	}
	c.dequeueLocked(e)
	e.building, e.target, e.next = true, g.Revision, nil
	e.scheduled.Store(true)
	e.asked.Store(false) // who waits is answered by this build
	c.reserved += need
	c.pumpAllLocked() // it may have kept others from the memory
	c.mu.Unlock()

	start := time.Now()
	v, err := build(s, g, old)
	took := time.Since(start)
	c.stats.built(took)

	c.mu.Lock()
	e.building = false
	e.scheduled.Store(false)
	c.reserved -= need
	e.notBefore = time.Now().Add(restFactor * took)
	e.took.Store(int64(took))
	switch {
	case err != nil:
		c.log.Error("a ring cannot be built", "group", g.Name, "revision", g.Revision, "error", err)
		c.placeLocked(e)
	case !e.gone:
		c.publishLocked(e, v)
	}
	c.finishLocked(e, err)
	if e.asked.Load() {
		c.scheduleLocked(e)
	}
	if old != nil && v != nil {
		c.verifyLocked(e, v)
	}
	c.pumpAllLocked() // there is memory again
	return true
}

// publishLocked replaces the view of an entry.
func (c *Cache) publishLocked(e *entry, v *View) {
	old := e.view.Load()
	if old != nil {
		c.used -= old.bytes()
	}
	c.used += v.bytes()
	v.missed.Store(e.next)
	e.view.Store(v)
	e.again.Store(old != nil)
	c.placeLocked(e)
}

// finishLocked tells those who wait that a build ended.
func (c *Cache) finishLocked(e *entry, err error) {
	e.err = err
	close(e.done)
	e.done = make(chan struct{})
	c.dropEmptyLocked(e)
}

// dropEmptyLocked forgets an entry that is of no use to anyone.
func (c *Cache) dropEmptyLocked(e *entry) {
	if e.view.Load() == nil && e.waiters == 0 && e.queue == notQueued && !e.building {
		c.dropLocked(e)
	}
}

// dropLocked forgets a ring. A build that is under way publishes nothing.
func (c *Cache) dropLocked(e *entry) {
	if e.gone {
		return
	}
	e.gone = true
	c.unplaceLocked(e)
	if v := e.view.Load(); v != nil {
		c.used -= v.bytes()
	}
	c.stopLaterLocked(e)
	c.entries.CompareAndDelete(e.name, e)
	close(e.done)
	e.done = make(chan struct{})
}

func (c *Cache) stopLaterLocked(e *entry) {
	if e.later != nil {
		e.later.Stop()
		e.later = nil
		e.scheduled.Store(false)
	}
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

// dropIdle holds the mutex for one ring at a time: they may be many.
func (c *Cache) dropIdle(before int64) {
	c.entries.Range(func(_, kept any) bool {
		if e := kept.(*entry); e.used.Load() <= before {
			c.mu.Lock()
			if e.used.Load() <= before && e.waiters == 0 && e.queue == notQueued && !e.building {
				c.dropLocked(e)
			}
			c.mu.Unlock()
		}
		return true
	})
}
