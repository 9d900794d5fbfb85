package rings

import "container/list"

// evictionOrder is the rings that may be evicted, from the back of each list: first
// those that were requested once (probation), then those that were requested again
// (protected). A ring that was requested since it was put there gets a second chance
// at the front of the second list. That is about the order of last use (the CLOCK
// algorithm), and a request only sets a bit.
type evictionOrder struct {
	probation, protected list.List
	bytes                int64 // of both
}

// maxSecondChances bounds the second chances for one eviction, which holds the mutex.
const maxSecondChances = 64

// unpinLocked makes the ring of an entry, if there is one, evictable.
func (c *Cache) unpinLocked(e *entry) {
	v := e.view.Load()
	if v == nil || e.dropped || e.elem != nil {
		return
	}
	c.evictable.bytes += v.bytes()
	if e.referenced.Swap(false) {
		e.elem = c.evictable.protected.PushFront(e)
	} else {
		e.elem = c.evictable.probation.PushFront(e)
	}
}

// pinLocked keeps the ring of an entry from being evicted.
func (c *Cache) pinLocked(e *entry) {
	if e.elem == nil {
		return
	}
	c.evictable.bytes -= e.view.Load().bytes()
	c.evictable.probation.Remove(e.elem) // it is in one of the two
	c.evictable.protected.Remove(e.elem)
	e.elem = nil
}

// makeRoomLocked evicts rings until so many bytes are free. It returns false, and
// evicts none, if all that are evictable are not enough.
func (c *Cache) makeRoomLocked(need int64) bool {
	free := c.memory - c.reserved - need // for the rings kept
	if c.used-c.evictable.bytes > free {
		return false
	}
	for c.used > free {
		e := c.evictable.next()
		c.stats.evicted.Add(1)
		if e.waiters == 0 && e.queue == notQueued {
			c.dropLocked(e)
			continue
		}
		c.pinLocked(e) // its waiters get the next one
		c.used -= e.view.Swap(nil).bytes()
	}
	return true
}

// next returns the ring to evict next; there is one.
func (o *evictionOrder) next() *entry {
	for passed := 0; ; passed++ {
		from := &o.probation
		if from.Len() == 0 {
			from = &o.protected
		}
		e := from.Back().Value.(*entry)
		if passed == maxSecondChances || !e.referenced.Swap(false) {
			return e
		}
		from.Remove(e.elem)
		e.elem = o.protected.PushFront(e)
	}
}
