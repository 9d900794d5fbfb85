package watch

import "github.com/werbenhu/registry/fsm"

// Known is what a watcher has of a group: a revision, and the fingerprint that
// the group had there. Revision 0: nothing.
type Known struct {
	Group       string
	Revision    uint64
	Fingerprint uint64
}

// Step is what a watcher has to be told next: changes that lead on from what it
// has, or the group as a whole, or that the group does not exist.
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
	known Known // what it was given last
	told  bool  // that the group does not exist
	level level
}

// Group returns a watcher that goes on from what it knows of the group.
func (h *Hub) Group(known Known) *GroupWatch { return &GroupWatch{hub: h, known: known} }

// Poll returns the next step, or a channel that is closed when to look again.
// A step has few changes: there may be more of them at once.
func (w *GroupWatch) Poll() (Step, <-chan struct{}) {
	if w.feed != nil {
		if step, wake, ok := w.next(); ok {
			return step, wake
		}
	}
	return w.start()
}

// next leads on from what the watcher has; ok is false when the feed does not. It
// takes the lock of the feed alone: the thousands of watchers of a group do not
// hold up the changes of others.
func (w *GroupWatch) next() (step Step, wake <-chan struct{}, ok bool) {
	f := w.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return Step{}, nil, false
	}
	w.level = level{max(f.index, w.hub.applied.Load()), true}
	if w.known == f.head {
		return Step{}, f.waiting(), true
	}
	changes, ok := f.after(w.known.Revision, w.known.Fingerprint)
	if !ok || w.known.Revision == 0 {
		return Step{}, nil, false
	}
	last := changes[len(changes)-1]
	w.known = Known{last.Group, last.Revision, last.Fingerprint}
	w.level.ok = w.known == f.head
	return Step{Group: w.known.Group, Changes: changes}, nil, true
}

// start looks the group up. It goes on in its feed, or starts over.
func (w *GroupWatch) start() (Step, <-chan struct{}) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	s := w.hub.state
	g := s.Group(w.known.Group)
	if g == nil {
		w.level.reach(s)
		if w.told {
			return Step{}, wait(&w.hub.wakes.created)
		}
		w.told, w.feed, w.known = true, nil, Known{Group: w.known.Group}
		return Step{Group: w.known.Group, Unknown: true, Index: s.Index()}, nil
	}
	w.told, w.feed = false, w.hub.feed(g)
	if step, wake, ok := w.next(); ok {
		return step, wake
	}
	w.level.reach(s)
	w.known = Known{g.Name, g.Revision, g.Fingerprint()}
	return Step{Group: g.Name, Snapshot: w.feed.whole(g, s.Index())}, nil
}

// Level returns the applied index up to which the watcher has been given
// everything, as of the last Poll; ok is false when more is to come.
func (w *GroupWatch) Level() (index uint64, ok bool) { return w.level.index, w.level.ok }

// level is an applied index: a watcher that is blocked keeps no state alive.
type level struct {
	index uint64
	ok    bool
}

func (l *level) reach(s *fsm.State) { *l = level{s.Index(), true} }
