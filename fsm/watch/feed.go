package watch

import (
	"slices"
	"sync"
	"weak"

	"github.com/werbenhu/registry/fsm"
)

// Bounds of the changes that a group remembers for watchers that are a little
// behind, and for those that resume. With twice feedGroups groups or more each
// has its part of what so many may remember, so that all of them together stay
// bounded, but feedLeast small changes at least.
const (
	feedChanges = 1024
	feedMembers = 16 << 10
	feedBytes   = 8 << 20 // of the members in them
	feedGroups  = 64
	feedLeast   = 4
)

// changesAtOnce bounds the changes that a watcher takes at a time: while it is
// blocked in sending them, it keeps them from being forgotten.
const changesAtOnce = 16

// feed is the last changes of a group. A group without a feed has had no change
// since the hub was made or restored, and no watcher.
//
//	changes  12 → 15 → 16 → 20
//	a watcher at 15 gets 15→16, 16→20
//	one at 14, at 3, which is forgotten, or at 15 with another fingerprint than
//	the group had there, gets the whole group at 20
type feed struct {
	mu    sync.Mutex // after Hub.mu; guards the rest, except snapshot
	head  Known      // what the group has now
	index uint64     // of the last change
	gone  bool       // the group was deleted or the hub restored: there may be another feed

	changes []*Change // appended to; what was appended is never written again
	members int       // in changes
	bytes   int       // of them
	dropped int       // elements before changes that its array still holds
	// wake is closed at the next change; nil while nobody waits.
	wake chan struct{}
	// snapshot is the last that was made, while someone sends it. Hub.mu guards it.
	snapshot weak.Pointer[Snapshot]
}

// publish adds a change; there are so many groups. It returns the channel of
// those who wait, nil for nobody, which the caller closes.
func (f *feed) publish(c *Change, groups int) (wake chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.head, f.index = Known{c.Group, c.Revision, c.Fingerprint}, c.Index
	f.changes = append(f.changes, c)
	f.count(c, 1)
	drop := 0
	for len(f.changes)-drop > 1 && f.tooMany(len(f.changes)-drop, groups) {
		f.count(f.changes[drop], -1)
		drop++
	}
	f.changes = f.changes[drop:]
	if f.dropped += drop; f.dropped > len(f.changes) {
		f.changes, f.dropped = slices.Clone(f.changes), 0 // lets go of what was dropped
	}
	return take(&f.wake)
}

// end lets go of the changes: idle watchers keep the feed. It returns the channel
// of those who wait.
func (f *feed) end() (wake chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone, f.changes = true, nil
	return take(&f.wake)
}

func (f *feed) tooMany(changes, groups int) bool {
	part := max(1, groups/feedGroups)
	return changes > max(feedLeast, feedChanges/part) || f.members > feedMembers || f.bytes > feedBytes/part
}

func (f *feed) count(c *Change, sign int) {
	members, bytes := c.size()
	f.members += sign * members
	f.bytes += sign * bytes
}

// after returns the changes that lead on from a revision at which the group had
// the fingerprint, at most changesAtOnce; ok is false when none is known to. The
// slice is shared: it is not to be changed.
func (f *feed) after(revision, fingerprint uint64) (changes []*Change, ok bool) {
	for i := len(f.changes) - 1; i >= 0; i-- {
		if c := f.changes[i]; c.From == revision {
			end := min(len(f.changes), i+changesAtOnce)
			return f.changes[i:end:end], c.FromFingerprint == fingerprint
		}
	}
	return nil, false
}

// waiting returns the channel that is closed at the next change.
func (f *feed) waiting() <-chan struct{} { return wait(&f.wake) }

// whole returns a snapshot of the group, shared with those who send it now.
func (f *feed) whole(g *fsm.Group, index uint64) *Snapshot {
	if s := f.snapshot.Value(); s != nil && s.Group.Revision == g.Revision {
		return s
	}
	s := &Snapshot{Group: g, Index: index}
	f.snapshot = weak.Make(s)
	return s
}
