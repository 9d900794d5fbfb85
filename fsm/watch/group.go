package watch

import "github.com/werbenhu/registry/fsm"

// Known is the position of a watcher in a group: a revision, and the group's
// fingerprint there. Revision 0: it has nothing.
type Known struct {
	Group       string
	Revision    uint64
	Fingerprint uint64
}

// Step is the next news for a watcher: changes that follow its position, or a
// snapshot, or that the group does not exist.
type Step struct {
	Group    string
	Changes  []*Change
	Snapshot *Snapshot
	Unknown  bool
	Index    uint64 // applied, at which the group is unknown
}

// GroupWatch follows one group, which need not exist yet. It is for one goroutine.
type GroupWatch struct {
	hub   *Hub
	feed  *feed // nil before the group was looked up
	known Known // the position after the last step
	// unknownSent: the last step was that the group does not exist.
	unknownSent bool
	progress
}

// Group returns a watcher that resumes from a position.
func (h *Hub) Group(known Known) *GroupWatch { return &GroupWatch{hub: h, known: known} }

// Poll returns the next step, or a channel that is closed when to poll again. A step
// has few changes; the next may follow at once.
func (w *GroupWatch) Poll() (Step, <-chan struct{}) {
	if w.feed != nil {
		if step, wake, ok := w.next(); ok {
			return step, wake
		}
	}
	return w.start()
}

// next continues from the watcher's position; ok is false if the feed cannot. It takes
// the lock of the feed alone, so the watchers of a group do not delay other groups.
func (w *GroupWatch) next() (step Step, wake <-chan struct{}, ok bool) {
	f := w.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return Step{}, nil, false
	}
	w.progress = progress{max(f.index, w.hub.applied.Load()), true}
	if w.known == f.head {
		return Step{}, wait(&f.wake), true
	}
	changes, ok := f.after(w.known.Revision, w.known.Fingerprint)
	if !ok || w.known.Revision == 0 {
		return Step{}, nil, false
	}
	last := changes[len(changes)-1]
	w.known = Known{last.Group, last.Revision, last.Fingerprint}
	w.progress.ok = w.known == f.head
	return Step{Group: w.known.Group, Changes: changes}, nil, true
}

// start looks the group up. It continues in its feed, or starts over.
func (w *GroupWatch) start() (Step, <-chan struct{}) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	s := w.hub.state
	g := s.Group(w.known.Group)
	if g == nil {
		w.progress.reach(s)
		if w.unknownSent {
			return Step{}, wait(&w.hub.wakes.created)
		}
		w.unknownSent, w.feed, w.known = true, nil, Known{Group: w.known.Group}
		return Step{Group: w.known.Group, Unknown: true, Index: s.Index()}, nil
	}
	w.unknownSent, w.feed = false, w.hub.feed(g)
	if step, wake, ok := w.next(); ok {
		return step, wake
	}
	w.progress.reach(s)
	w.known = Known{g.Name, g.Revision, g.Fingerprint()}
	return Step{Group: g.Name, Snapshot: w.feed.snapshotOf(g, s.Index())}, nil
}

// progress of a watcher is an index and no state: a blocked one keeps no state in
// memory.
type progress struct {
	index uint64
	ok    bool
}

// Progress returns the applied index up to which the watcher has every change, as of
// the last Poll; ok is false if more follow.
func (l *progress) Progress() (index uint64, ok bool) { return l.index, l.ok }

func (l *progress) reach(s *fsm.State) { *l = progress{s.Index(), true} }
