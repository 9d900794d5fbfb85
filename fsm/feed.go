package fsm

import (
	"slices"
	"sync"

	"github.com/werbenhu/registry/ring"
)

// Bounds of the changes that a group remembers for watchers that are a little
// behind, and for those that come back. A watcher that is further behind gets
// the whole group again.
const (
	feedChanges = 1024
	feedMembers = 16 << 10
	feedBytes   = 8 << 20 // of the members in them
)

// RingChange is one step of a group: from one published ring to the next. It
// never changes, so it is encoded once, whoever watches.
type RingChange struct {
	Group string
	// From is the revision of the ring before, 0 before the first one;
	// Revision that of the ring after. Under lasting change a step spans
	// several revisions of the group.
	From, Revision uint64
	Index          uint64
	Params         ring.Params
	Fingerprint    uint64
	Put            []*Member
	Removed        []string

	once    sync.Once
	encoded any
}

// Encoded returns what encode makes of the change; it is called once.
func (c *RingChange) Encoded(encode func(*RingChange) any) any {
	c.once.Do(func() { c.encoded = encode(c) })
	return c.encoded
}

// changeBetween compares two views of a group; prev may be nil.
func changeBetween(group string, prev, next *RingView) *RingChange {
	c := &RingChange{
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
func (c *RingChange) size() (members, bytes int) {
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
// read holds no memory here.
//
//	published  12 → 15 → 16 → 20
//	a watcher at 15 gets 15→16, 16→20
//	one at 14, or at 3, which is gone, gets the whole group at 20
type feed struct {
	mu      sync.Mutex    // guards the rest
	changes []*RingChange // appended to; what was appended is never written again
	members int           // in changes
	bytes   int           // of them
	dropped int           // elements before changes that its array still holds
	wake    chan struct{} // closed and replaced at every publication
}

func (f *feed) publish(c *RingChange) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.changes); n > 0 && f.changes[n-1].Revision != c.From {
		f.changes, f.members, f.bytes, f.dropped = nil, 0, 0, 0 // no chain leads over a gap
	}
	f.changes = append(f.changes, c)
	f.count(c, 1)
	drop := 0
	for left := len(f.changes); left > feedChanges || left > 1 && (f.members > feedMembers || f.bytes > feedBytes); left-- {
		f.count(f.changes[drop], -1)
		drop++
	}
	f.changes = f.changes[drop:]
	if f.dropped += drop; f.dropped > len(f.changes) {
		f.changes, f.dropped = slices.Clone(f.changes), 0 // lets go of what was dropped
	}
	f.wakeLocked()
}

func (f *feed) count(c *RingChange, sign int) {
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
	f.wakeLocked()
}

func (f *feed) wakeLocked() {
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
func (f *feed) after(revision uint64) (changes []*RingChange, wake <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	n := len(f.changes)
	if n == 0 {
		return nil, f.wake, false
	}
	if f.changes[n-1].Revision == revision {
		return nil, f.wake, true
	}
	for i := n - 1; i >= 0; i-- {
		if f.changes[i].From == revision {
			end := min(n, i+changesAtOnce)
			return f.changes[i:end:end], f.wake, true
		}
	}
	return nil, f.wake, false
}

// hubNames bounds the publications that the hub remembers.
const hubNames = 4096

// hub says which groups' rings were published, for those that follow many.
type hub struct {
	mu    sync.Mutex // guards the rest
	names []string   // the last publications
	next  uint64     // number of publications ever
	wake  chan struct{}
}

// publish notes one group, or without a name that any may have changed.
func (h *hub) publish(names ...string) {
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
	if h.wake != nil {
		close(h.wake)
		h.wake = nil
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
