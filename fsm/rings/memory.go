package rings

import "container/list"

// order is the rings that may be dropped, each where it was put, the last one first
// to go: those that were asked for once, and then those that were asked for again.
// One that was asked for since it was put there is passed over, and put in front of
// the second list, so that the order is about that of their last use (the CLOCK
// algorithm) and a question only sets a bit.
type order struct {
	once, again list.List
	bytes       int64 // of both
}

// passedOver bounds the rings that are passed over for one that is dropped: the
// mutex is held meanwhile.
const passedOver = 64

// placeLocked lets the ring of an entry be dropped, if there is one.
func (c *Cache) placeLocked(e *entry) {
	v := e.view.Load()
	if v == nil || e.gone || e.place != nil {
		return
	}
	c.kept.bytes += v.bytes()
	if e.again.Swap(false) {
		e.place = c.kept.again.PushFront(e)
	} else {
		e.place = c.kept.once.PushFront(e)
	}
}

// unplaceLocked keeps the ring of an entry from being dropped.
func (c *Cache) unplaceLocked(e *entry) {
	if e.place == nil {
		return
	}
	c.kept.bytes -= e.view.Load().bytes()
	c.kept.once.Remove(e.place) // of the two, the one that it is in
	c.kept.again.Remove(e.place)
	e.place = nil
}

// makeRoomLocked drops rings until so many bytes are free. It returns false, and
// drops none, when all that may be dropped is not enough.
func (c *Cache) makeRoomLocked(need int64) bool {
	free := c.memory - c.reserved - need // what the rings kept may take
	if c.used-c.kept.bytes > free {
		return false
	}
	for c.used > free {
		e := c.kept.last()
		c.stats.evicted.Add(1)
		if e.waiters == 0 && e.queue == notQueued {
			c.dropLocked(e)
			continue
		}
		c.unplaceLocked(e) // those who wait get the next one
		c.used -= e.view.Swap(nil).bytes()
	}
	return true
}

// last returns the ring to drop next; there is one.
func (o *order) last() *entry {
	for passed := 0; ; passed++ {
		from := &o.once
		if from.Len() == 0 {
			from = &o.again
		}
		e := from.Back().Value.(*entry)
		if passed == passedOver || !e.again.Swap(false) {
			return e
		}
		from.Remove(e.place)
		e.place = o.again.PushFront(e)
	}
}
