package check

import (
	"cmp"
	"maps"
	"slices"
)

// Watcher follows the events of one watch of one group, through as many
// streams as it takes, and knows the members that they add up to.
type Watcher struct {
	// Name of the watch in violations.
	Name string
	// Views is told what the group looks like after each event; may be nil.
	Views *Views
	// Gone is told of members that the watch saw go; may be nil.
	Gone func(group, id string)

	group                 string
	revision, fingerprint uint64
	begun                 bool
	members               map[string]Member
	found                 []Violation
}

// Position is where the next stream resumes; 0, 0 at the beginning.
func (w *Watcher) Position() (revision, fingerprint uint64) { return w.revision, w.fingerprint }

// Members are those that the events add up to, by id.
func (w *Watcher) Members() []Member {
	return slices.SortedFunc(maps.Values(w.members), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
}

// Violations returns what was found.
func (w *Watcher) Violations() []Violation { return w.found }

// Snapshot is an event that replaces what was known. The node is always the
// same, so it never knows less than before.
func (w *Watcher) Snapshot(group string, revision, fingerprint uint64, members []Member) {
	if w.begun && revision < w.revision {
		w.found = append(w.found, violation("watch", "%s: a snapshot of revision %d after %d", w.Name, revision, w.revision))
	}
	next := make(map[string]Member, len(members))
	for _, m := range members {
		next[m.ID] = m
	}
	for id := range w.members {
		if _, stays := next[id]; !stays {
			w.gone(group, id)
		}
	}
	w.begun, w.group, w.members = true, group, next
	w.at(revision, fingerprint)
}

// Unknown is an event that says that the group does not exist: before a node
// has heard of it, and of a group that is never removed not afterwards.
func (w *Watcher) Unknown(group string) {
	if w.begun {
		w.found = append(w.found, violation("watch", "%s: group %s, seen at revision %d, does not exist", w.Name, group, w.revision))
	}
}

// Delta is an event that leads on from the revision from.
func (w *Watcher) Delta(group string, from, revision, fingerprint uint64, put []Member, removed []string) {
	switch {
	case !w.begun:
		w.found = append(w.found, violation("watch", "%s: a delta before any snapshot", w.Name))
		w.begun, w.group, w.members = true, group, make(map[string]Member)
	case from != w.revision:
		w.found = append(w.found, violation("watch", "%s: a delta from revision %d, seen was %d: a gap", w.Name, from, w.revision))
	case revision <= from:
		w.found = append(w.found, violation("watch", "%s: a delta from revision %d to %d", w.Name, from, revision))
	}
	for _, id := range removed {
		if _, known := w.members[id]; !known {
			w.found = append(w.found, violation("watch", "%s: revision %d removes %s, which was not there", w.Name, revision, id))
		}
		delete(w.members, id)
		w.gone(group, id)
	}
	for _, m := range put {
		w.members[m.ID] = m
	}
	w.at(revision, fingerprint)
}

func (w *Watcher) gone(group, id string) {
	if w.Gone != nil {
		w.Gone(group, id)
	}
}

func (w *Watcher) at(revision, fingerprint uint64) {
	w.revision, w.fingerprint = revision, fingerprint
	if w.Views != nil {
		w.Views.Note(w.group, revision, fingerprint, w.Members(), w.Name)
	}
}

// Final compares the watch with a read of the same node at the end.
func (w *Watcher) Final(revision uint64, members []Member) {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	switch {
	case w.revision != revision:
		w.found = append(w.found, violation("watch", "%s: ended at revision %d, the group is at %d", w.Name, w.revision, revision))
	case !slices.Equal(w.Members(), members):
		w.found = append(w.found, violation("watch", "%s: at revision %d its events add up to %v, the group is %v", w.Name, revision, w.Members(), members))
	}
}

// Session is one client that goes from node to node and says what it has seen.
type Session struct {
	Name      string
	index     uint64
	revisions map[string]uint64
	found     []Violation
}

// Index is what the next read must ask for at least.
func (s *Session) Index() uint64 { return s.index }

// Note takes an answer to a read that asked for at least Index.
func (s *Session) Note(node, group string, index, revision uint64) {
	if index < s.index {
		s.found = append(s.found, violation("session", "%s: %s answers from index %d, asked was for at least %d", s.Name, node, index, s.index))
	}
	if before := s.revisions[group]; revision < before {
		s.found = append(s.found, violation("session", "%s: %s answers from revision %d of %s, seen was %d", s.Name, node, revision, group, before))
	}
	if revision > index {
		s.found = append(s.found, violation("session", "%s: %s answers from revision %d of %s at index %d", s.Name, node, revision, group, index))
	}
	s.Wrote(group, index, revision)
}

// Wrote takes the index that a write was acknowledged with, and the group's
// revision after it: the next read must ask for that index, and know of both.
func (s *Session) Wrote(group string, index, revision uint64) {
	if s.revisions == nil {
		s.revisions = make(map[string]uint64)
	}
	s.index, s.revisions[group] = max(s.index, index), max(s.revisions[group], revision)
}

// Violations returns what was found.
func (s *Session) Violations() []Violation { return s.found }
