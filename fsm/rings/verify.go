package rings

import (
	"slices"
	"time"
)

// verifyFactor × the time of a comparison passes until the next one.
const verifyFactor = 100

// verifyLocked compares, now and then, a ring that was updated by changes with a
// rebuilt one: a fingerprint covers the inputs of a ring, not its points. It takes
// at most 1 % of a processor, and waits for memory. The mutex is released meanwhile.
func (c *Cache) verifyLocked(e *entry, v *View) {
	now, need := time.Now(), buildFactor*v.bytes()
	if now.Before(c.verifyAt) || c.used+c.reserved+need > c.memory || c.starved != nil {
		return
	}
	c.verifyAt = now.Add(time.Hour) // one at a time
	c.reserved += need
	c.mu.Unlock()
	again, err := v.rebuild()
	right := err == nil && again.Ring.Digest() == v.Ring.Digest()
	took := time.Since(now)
	c.mu.Lock()
	c.reserved -= need
	c.verifyAt = time.Now().Add(verifyFactor * took)
	c.stats.verified.Add(1)
	if right {
		return
	}
	c.stats.mismatches.Add(1)
	c.log.Error("updated ring differs from a rebuilt one, which replaces it",
		"group", e.name, "revision", v.Revision, "error", err)
	if e.dropped || err != nil || e.view.Load() == nil {
		return
	}
	if e.view.Load() == v && !e.building {
		c.pinLocked(e)
		c.used += again.bytes() - v.bytes()
		e.view.Store(again)
		c.unpinLocked(e)
		return
	}
	c.dropLocked(e) // a later ring is based on the wrong one
}

// Some returns kept rings for a comparison with other nodes, ordered by group,
// beginning at from: at most so many, and until their memory exceeds bytes. next is
// the group to continue with; empty: the first.
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
