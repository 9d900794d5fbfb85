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
}

// GroupWatch follows one group, which need not exist yet. It is for one goroutine.
type GroupWatch struct {
	hub   *Hub
	known Known // what it was given last
	told  bool  // that the group does not exist
	level level
}

// Group returns a watcher that goes on from what it knows of the group.
func (h *Hub) Group(known Known) *GroupWatch { return &GroupWatch{hub: h, known: known} }

// Poll returns the next step, or a channel that is closed when to look again.
// A step has few changes: there may be more of them at once.
func (w *GroupWatch) Poll() (Step, <-chan struct{}) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	s := w.hub.state
	g := s.Group(w.known.Group)
	if g == nil {
		w.level.reach(s)
		if w.told {
			return Step{}, wait(&w.hub.wakes.created)
		}
		w.told, w.known = true, Known{Group: w.known.Group}
		return Step{Group: w.known.Group, Unknown: true}, nil
	}
	w.told, w.level = false, level{}
	step, wake := w.next(g, w.hub.feed(g.Name))
	if w.known.Revision == g.Revision {
		w.level.reach(s)
	}
	return step, wake
}

// next leads on from what the watcher has, or starts over.
func (w *GroupWatch) next(g *fsm.Group, f *feed) (Step, <-chan struct{}) {
	if w.known.Revision == g.Revision && w.known.Fingerprint == g.Fingerprint() {
		return Step{}, f.waiting()
	}
	step := Step{Group: g.Name}
	if changes, ok := f.after(w.known.Revision, w.known.Fingerprint); ok && w.known.Revision != 0 {
		last := changes[len(changes)-1]
		step.Changes = changes
		w.known.Revision, w.known.Fingerprint = last.Revision, last.Fingerprint
		return step, nil
	}
	step.Snapshot = f.whole(g, w.hub.state.Index())
	w.known.Revision, w.known.Fingerprint = g.Revision, g.Fingerprint()
	return step, nil
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
