package watch

import (
	"slices"
	"sync"
	"weak"

	"github.com/werbenhu/registry/fsm"
)

// Bounds of a group's history, for watchers that are behind and that resume. With
// twice feedGroups groups or more, each has its share of feedGroups histories, but at
// least feedLeast small changes.
const (
	feedChanges = 1024
	feedMembers = 16 << 10
	feedBytes   = 8 << 20 // of the members in them
	feedGroups  = 64
	feedLeast   = 4
)

// changesAtOnce bounds the changes that a watcher takes at a time: they stay in memory
// while it sends them.
const changesAtOnce = 16

// feed is the history of a group: its last changes. A group without a feed has had
// no change since the hub was made or restored, and no watcher.
//
//	changes  12 → 15 → 16 → 20
//	a watcher at 15 gets 15→16, 16→20
//	a watcher at 14, at 3, which is no longer kept, or at 15 with another
//	fingerprint than the group had there, gets a snapshot of 20
type feed struct {
	mu    sync.Mutex // after Hub.mu; guards the rest, except snapshot
	head  Known      // the group's current position
	index uint64     // of the last change
	ended bool       // the group was deleted or the hub restored: there may be another feed

	changes []*Change // elements are never written again
	members int       // in changes
	bytes   int       // of them
	dropped int       // elements before changes that its array still holds
	// wake is closed at the next change; nil without waiters.
	wake chan struct{}
	// snapshot is the last one that was made, while it is sent. Hub.mu guards it.
	snapshot weak.Pointer[Snapshot]
}

// publish adds a change. It returns the channel that watchers wait on, or nil, for
// the caller to close. groups is the number of groups.
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
		f.changes, f.dropped = slices.Clone(f.changes), 0 // releases the dropped ones
	}
	return take(&f.wake)
}

// end releases the changes, because idle watchers keep the feed. It returns the
// channel that they wait on.
func (f *feed) end() (wake chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended, f.changes = true, nil
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

// after returns the changes that follow a revision at which the group had the
// fingerprint, at most changesAtOnce; ok is false if they are not in the history. The
// slice is shared and must not be changed.
func (f *feed) after(revision, fingerprint uint64) (changes []*Change, ok bool) {
	for i := len(f.changes) - 1; i >= 0; i-- {
		if c := f.changes[i]; c.From == revision {
			end := min(len(f.changes), i+changesAtOnce)
			return f.changes[i:end:end], c.FromFingerprint == fingerprint
		}
	}
	return nil, false
}

// snapshotOf returns a snapshot of the group, shared by the watchers that send it now.
func (f *feed) snapshotOf(g *fsm.Group, index uint64) *Snapshot {
	if s := f.snapshot.Value(); s != nil && s.Group.Revision == g.Revision {
		return s
	}
	s := &Snapshot{Group: g, Index: index}
	f.snapshot = weak.Make(s)
	return s
}
