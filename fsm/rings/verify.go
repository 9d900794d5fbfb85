package rings

import (
	"slices"
	"time"
)

// verifyFactor × the cost of a comparison passes until the next one.
const verifyFactor = 100

// turns says when the next comparison is due.
type turns struct{ next time.Time }

// verifyLocked compares, now and then, a ring that grew by changes with one that
// is built anew: a fingerprint says nothing of how a ring was built. It takes at
// most a hundredth of a processor, and waits while there is no memory for it. The
// mutex is released meanwhile.
func (c *Cache) verifyLocked(e *entry, v *View) {
	now, need := time.Now(), buildFactor*v.bytes()
	if now.Before(c.verify.next) || c.used+c.reserved+need > c.memory || c.starved != nil {
		return
	}
	c.verify.next = now.Add(time.Hour) // one at a time
	c.reserved += need
	c.mu.Unlock()
	again, err := v.anew()
	right := err == nil && again.Ring.Digest() == v.Ring.Digest()
	took := time.Since(now)
	c.mu.Lock()
	c.reserved -= need
	c.verify.next = time.Now().Add(verifyFactor * took)
	c.stats.verified.Add(1)
	if right {
		return
	}
	c.stats.mismatches.Add(1)
	c.log.Error("a ring that grew by changes differs from one that was built anew, which replaces it",
		"group", e.name, "revision", v.Revision, "error", err)
	if e.gone || err != nil || e.view.Load() == nil {
		return
	}
	if e.view.Load() == v && !e.building {
		c.unplaceLocked(e)
		c.used += again.bytes() - v.bytes()
		e.view.Store(again)
		c.placeLocked(e)
		return
	}
	c.dropLocked(e) // a later ring grew, or grows, from the wrong one
}

// Some returns kept rings for a comparison with other nodes, ordered by group and
// beginning with the first that is not before from: at most so many, until their
// memory exceeds bytes. next is the group to go on with; empty: from the first on.
func (c *Cache) Some(from string, rings, bytes int) (views map[string]*View, next string) {
	var names []string
	c.entries.Range(func(name, kept any) bool {
		if name.(string) >= from && kept.(*entry).view.Load() != nil {
			names = append(names, name.(string))
		}
		return true
	})
	slices.Sort(names)
	views = make(map[string]*View)
	size := 0
	for _, name := range names {
		if len(views) == rings || size > bytes {
			return views, name
		}
		if v := c.Peek(name); v != nil {
			views[name] = v
			size += v.Ring.Bytes()
		}
	}
	return views, ""
}
