package fsm

import (
	"maps"
	"slices"
	"sync"

	"github.com/werbenhu/registry/ring"
)

// Bounds of the changes that a group remembers for watchers that are a little
// behind, and for those that come back. A watcher that is further behind gets
// the whole group again. With twice feedGroups groups or more each has its part
// of what so many may remember, so that all of them together stay bounded, but
// feedLeast small changes at least, and those that the newest ring does not hold yet:
// a watcher that starts is given that ring and what came after it.
const (
	feedChanges = 1024
	feedMembers = 16 << 10
	feedBytes   = 8 << 20 // of the members in them
	feedGroups  = 64
	feedLeast   = 4
)

// GroupChange is one step of a group: from one published ring to the next, or
// from one applied revision to the next, before the ring is built. It never
// changes, so it is encoded once, whoever watches.
type GroupChange struct {
	Group string
	// From is the revision before, 0 before the first one; Revision the one
	// after. Under lasting change a step from ring to ring spans several
	// revisions of the group, and so does one of several entries applied together.
	From, Revision uint64
	Index          uint64
	Params         ring.Params
	Fingerprint    uint64 // of the ring after; 0 while there is none
	// Removed goes before Put: a member that went and came again may be in both.
	Removed []string
	Put     []*Member

	once    sync.Once
	encoded any
}

// Encoded returns what encode makes of the change; it is called once.
func (c *GroupChange) Encoded(encode func(*GroupChange) any) any {
	c.once.Do(func() { c.encoded = encode(c) })
	return c.encoded
}

// changeBetween compares two views of a group; prev may be nil.
func changeBetween(group string, prev, next *RingView) *GroupChange {
	c := &GroupChange{
		Group: group, Revision: next.Revision, Index: next.Index,
		Params: next.Ring.Params(), Fingerprint: next.Ring.Fingerprint(),
	}
	var old []*Member
	if prev != nil {
		c.From, old = prev.Revision, prev.members
	}
	// Both are ordered by id.
	for _, m := range next.members {
		for len(old) > 0 && old[0].ID < m.ID {
			c.Removed = append(c.Removed, old[0].ID)
			old = old[1:]
		}
		if len(old) > 0 && old[0].ID == m.ID {
			if old[0].ModifiedIndex != m.ModifiedIndex {
				c.Put = append(c.Put, m)
			}
			old = old[1:]
			continue
		}
		c.Put = append(c.Put, m)
	}
	for _, m := range old {
		c.Removed = append(c.Removed, m.ID)
	}
	return c
}

// size counts members, and about the bytes that remembering them costs.
func (c *GroupChange) size() (members, bytes int) {
	for _, m := range c.Put {
		bytes += len(m.ID) + len(m.Addr)
		for _, p := range m.Meta {
			bytes += len(p.Key) + len(p.Value)
		}
	}
	members = 1 + len(c.Put) + len(c.Removed)
	return members, bytes + members*128
}

// feed keeps the last changes of a group and wakes those that wait for the
// next. A watcher holds a revision and never a change, so one that does not
// read holds no memory here. A group has one of its revisions and one of its
// rings.
//
//	published  12 → 15 → 16 → 20
//	a watcher at 15 gets 15→16, 16→20
//	one at 14, or at 3, which is gone, gets the whole group at 20
type feed struct {
	mu      sync.Mutex     // guards the rest
	head    uint64         // revision after the last change
	changes []*GroupChange // that lead there; appended to, and what was appended is never written again
	members int            // in changes
	bytes   int            // of them
	dropped int            // elements before changes that its array still holds
	wake    chan struct{}  // closed and replaced at every publication
}

// begin makes a feed start at a revision that no change leads to.
func (f *feed) begin(revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.head = revision
}

// publish adds a change. There are so many groups, and the newest ring is of
// the revision built. It returns the channel that those wait on who are to be
// told, nil for nobody: to close it takes a while when they are many, which is
// not for the goroutine that applies, nor under a lock.
func (f *feed) publish(c *GroupChange, groups int, built uint64) (wake chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.head != c.From {
		f.changes, f.members, f.bytes, f.dropped = nil, 0, 0, 0 // no chain leads over a gap
	}
	f.head = c.Revision
	f.changes = append(f.changes, c)
	f.count(c, 1)
	drop := 0
	for len(f.changes)-drop > 1 && f.tooMany(drop, groups, built) {
		f.count(f.changes[drop], -1)
		drop++
	}
	f.changes = f.changes[drop:]
	if f.dropped += drop; f.dropped > len(f.changes) {
		f.changes, f.dropped = slices.Clone(f.changes), 0 // lets go of what was dropped
	}
	wake, f.wake = f.wake, nil
	return wake
}

// tooMany tells whether another change has to go, after the first drop.
func (f *feed) tooMany(drop, groups int, built uint64) bool {
	left := len(f.changes) - drop
	if left > feedChanges || f.members > feedMembers || f.bytes > feedBytes {
		return true
	}
	part := max(1, groups/feedGroups)
	return f.changes[drop].Revision <= built && (left > max(feedLeast, feedChanges/part) || f.bytes > feedBytes/part)
}

func (f *feed) count(c *GroupChange, sign int) {
	members, bytes := c.size()
	f.members += sign * members
	f.bytes += sign * bytes
}

// awaited tells whether a watcher waits for the next publication.
func (f *feed) awaited() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wake != nil
}

func (f *feed) wakeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// changesAtOnce bounds the changes that a watcher takes at a time: while it is
// blocked in sending them, it keeps them from being forgotten.
const changesAtOnce = 16

// after returns the first changes that lead on from a revision, at most
// changesAtOnce, none at the newest; ok is false when none is known to. wake is
// closed at the next publication. The slice is shared: it is not to be changed.
func (f *feed) after(revision uint64) (changes []*GroupChange, wake <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	all, ok := f.sinceLocked(revision)
	end := min(len(all), changesAtOnce)
	return all[:end:end], f.wake, ok
}

// reached tells whether a revision was published.
func (f *feed) reached(revision uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.head >= revision
}

// between returns all changes that lead from one revision to a later one; ok is
// false when they are not known to. The slice is shared: it is not to be changed.
func (f *feed) between(from, to uint64) (changes []*GroupChange, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, ok := f.sinceLocked(from)
	if !ok || from == to {
		return nil, ok
	}
	for i, c := range all {
		if c.Revision == to {
			return all[: i+1 : i+1], true
		}
	}
	return nil, false
}

// sinceLocked returns the changes that lead on from a revision, none at the
// newest; ok is false when none is known to.
func (f *feed) sinceLocked(revision uint64) (changes []*GroupChange, ok bool) {
	if f.head == revision {
		return nil, true
	}
	for i := len(f.changes) - 1; i >= 0; i-- {
		if f.changes[i].From == revision {
			return f.changes[i:], true
		}
	}
	return nil, false
}

// joined makes one change of several that follow each other.
func joined(changes []*GroupChange) *GroupChange {
	last := changes[len(changes)-1]
	c := &GroupChange{Group: last.Group, From: changes[0].From, Revision: last.Revision, Index: last.Index, Params: last.Params}
	now := make(map[string]*Member) // nil: gone
	was := make(map[string]bool)    // it was there before
	for _, one := range changes {
		for _, id := range one.Removed {
			if _, seen := now[id]; !seen {
				was[id] = true
			}
			now[id] = nil
		}
		for _, m := range one.Put {
			if _, seen := now[m.ID]; !seen {
				was[m.ID] = m.CreatedIndex <= c.From
			}
			now[m.ID] = m
		}
	}
	for _, id := range slices.Sorted(maps.Keys(now)) {
		if m := now[id]; m != nil {
			c.Put = append(c.Put, m)
		} else if was[id] {
			c.Removed = append(c.Removed, id)
		}
	}
	return c
}

// hubNames bounds the publications that the hub remembers.
const hubNames = 4096

// hub says which groups have news, for those that follow many.
type hub struct {
	mu    sync.Mutex // guards the rest
	names []string   // the last publications
	next  uint64     // number of publications ever
	wake  chan struct{}
}

// publish notes groups, or without a name that any may have changed. The
// channel that it returns is to be closed: see feed.publish.
func (h *hub) publish(names ...string) (wake chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(names) == 0 {
		h.next += hubNames + 1 // whoever follows has missed some
		h.names = nil
	}
	h.next += uint64(len(names))
	h.names = append(h.names, names...)
	if over := len(h.names) - hubNames; over > 0 {
		h.names = h.names[over:]
	}
	wake, h.wake = h.wake, nil
	return wake
}

// closeAll closes the channels that are not nil.
func closeAll(wakes ...chan struct{}) {
	for _, wake := range wakes {
		if wake != nil {
			close(wake)
		}
	}
}

// since returns the groups published after the first `seen` publications; ok
// is false when some of them are forgotten.
func (h *hub) since(seen uint64) (names []string, next uint64, wake <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wake == nil {
		h.wake = make(chan struct{})
	}
	missed := h.next - seen
	if missed > uint64(len(h.names)) {
		return nil, h.next, h.wake, false
	}
	return append([]string(nil), h.names[uint64(len(h.names))-missed:]...), h.next, h.wake, true
}
