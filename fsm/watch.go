package fsm

import (
	"slices"
	"strings"
)

// Step is what a watcher has to be told next: either changes that lead on from
// what it has, or a view to start over from, or that the group does not exist.
type Step struct {
	Group   string
	Changes []*GroupChange
	View    *RingView
	Unknown bool
}

// GroupWatch follows one group, which need not exist yet. It is for one
// goroutine. It holds a position and no changes, so one that is not asked for
// long costs nothing and is told to start over.
type GroupWatch struct {
	machine  *Machine
	name     string
	timing   Timing
	known    uint64 // the revision that it began with
	cell     *ringCell
	revision uint64 // of what it was given; 0 for nothing
	told     bool   // that the group does not exist

	// unproven, with AtOnce, is the fingerprint that the ring at the revision has
	// to have, while that is not known; 0 for none.
	unproven uint64
	// least is the revision of the ring to start over with, 0 for any: what the
	// watcher may have been told before, elsewhere, is not taken back.
	least    uint64
	starting bool // least is set
}

// Timing is when a watcher is told of a change of a group.
type Timing int

const (
	// WithRing tells of a change with the ring that it leads to, when that is built.
	WithRing Timing = iota
	// AtOnce tells of a change when it is applied.
	AtOnce
)

// WatchGroup returns a watcher that has seen what it knows of the group: a
// revision, at which the ring had that fingerprint; revision 0: nothing. With
// AtOnce, a fingerprint of 0 is not compared.
func (m *Machine) WatchGroup(known KnownGroup, timing Timing) *GroupWatch {
	w := &GroupWatch{machine: m, name: known.Name, known: known.Revision, revision: known.Revision, timing: timing}
	if known.Revision == 0 {
		return w
	}
	if timing == AtOnce {
		w.unproven = known.Fingerprint
		return w
	}
	if g := m.State().Group(known.Name); g != nil {
		if v := g.Ring(); v != nil && v.Revision == known.Revision && v.Ring.Fingerprint() != known.Fingerprint {
			w.revision = 0
		}
	}
	return w
}

// Poll returns the next step, or a channel that is closed when to look again.
// A step has few changes: there may be more of them at once.
func (w *GroupWatch) Poll() (Step, <-chan struct{}) {
	for {
		g := w.machine.State().Group(w.name)
		if g == nil {
			created := w.machine.groupCreated()
			if w.machine.State().Group(w.name) != nil {
				continue
			}
			if w.told {
				return Step{}, created
			}
			w.told, w.known, w.revision, w.unproven, w.starting, w.cell = true, 0, 0, 0, false, nil
			return Step{Group: w.name, Unknown: true}, nil
		}
		w.told = false
		w.cell = g.cell
		step, wake := w.next(g)
		if wake == nil {
			return step, nil
		}
		if again := w.machine.State().Group(w.name); again != nil && again.cell == w.cell {
			return Step{}, wake
		} // else a snapshot replaced the group: nothing wakes this cell any more
	}
}

// next leads on from the watcher's revision, or starts over:
//
//	rings      12 ──────── 17 (being built)
//	revisions  12 14 15 16 17
//	WithRing, at 12: waits, and gets 12→17 with the ring of 17
//	AtOnce, at 12: gets 12→14 … 16→17
//	AtOnce, at 15, with a fingerprint to be proven: waits for the ring of 17,
//	and gets 15→17 with its fingerprint as one change
//	AtOnce, without a state: waits for the ring of 17, because it may have been
//	told of 17 at another node
func (w *GroupWatch) next(g *Group) (Step, <-chan struct{}) {
	if w.unproven != 0 {
		if step, wake, ok := w.prove(g); ok {
			return step, wake
		}
	}
	if w.timing == AtOnce && w.revision != 0 {
		if changes, wake, ok := w.cell.revisions.after(w.revision); ok {
			return w.follow(changes, wake)
		} // else it may have been overrun, and rings lead on
	}
	if w.revision != 0 {
		changes, wake, ok := w.cell.feed.after(w.revision)
		switch {
		case ok && len(changes) == 0 && w.timing == AtOnce:
			return w.atNewestRing()
		case ok:
			return w.follow(changes, wake)
		}
	}
	return w.startOver(g)
}

// atNewestRing leads on from the newest ring where no revisions did: the ring
// came ahead of them, or they are forgotten and the next ring leads on.
func (w *GroupWatch) atNewestRing() (Step, <-chan struct{}) {
	_, published, _ := w.cell.revisions.after(0)
	if !w.cell.revisions.reached(w.revision) {
		return Step{}, published
	}
	if changes, wake, ok := w.cell.revisions.after(w.revision); ok {
		return w.follow(changes, wake)
	}
	built := w.cell.awaitRing(false)
	changes, _, _ := w.cell.feed.after(w.revision)
	return w.follow(changes, built)
}

// follow takes changes that lead on from the watcher's revision.
func (w *GroupWatch) follow(changes []*GroupChange, wake <-chan struct{}) (Step, <-chan struct{}) {
	if len(changes) == 0 {
		return Step{}, wake
	}
	w.revision, w.starting = changes[len(changes)-1].Revision, false
	return Step{Group: w.name, Changes: changes}, nil
}

// startOver gives the watcher a ring's view, once there is one that is late enough.
func (w *GroupWatch) startOver(g *Group) (Step, <-chan struct{}) {
	told := max(w.known, w.revision)
	w.revision = 0
	if !w.starting {
		w.starting, w.least = true, told
		if told == 0 && w.timing == AtOnce {
			w.least = g.Revision
		}
	}
	w.least = min(w.least, g.Revision)           // of a group that a snapshot brought, too
	_, published, _ := w.cell.revisions.after(0) // before the view is looked at
	view := w.cell.view.Load()
	if view == nil || view.Revision < w.least {
		built := w.cell.awaitRing(true)
		if view = w.cell.view.Load(); view == nil || view.Revision < w.least {
			return Step{}, built
		}
	}
	if w.timing == AtOnce && !w.cell.revisions.reached(view.Revision) {
		return Step{}, published // a build saw the state before its change was published
	}
	w.revision, w.starting = view.Revision, false
	return Step{Group: w.name, View: view}, nil
}

// prove looks whether the watcher's state is one of this group, by the ring's
// fingerprint: the cluster may have been rebuilt, and know a revision of that
// number by chance. The ring of a later revision serves as well, because the
// watcher can build it of what it is sent. ok is false when there is nothing to
// wait for and nothing to be sent: the state is proven, or with revision 0 given up.
func (w *GroupWatch) prove(g *Group) (step Step, wake <-chan struct{}, ok bool) {
	_, published, known := w.cell.revisions.after(w.revision)
	if !known && g.Revision >= w.revision && !w.cell.revisions.reached(g.Revision) {
		return Step{}, published, true // the revision is about to be published
	}
	view := w.cell.view.Load()
	if known && (view == nil || view.Revision < w.revision) {
		built := w.cell.awaitRing(true)
		if view = w.cell.view.Load(); view == nil || view.Revision < w.revision {
			return Step{}, built, true
		}
	}
	if known && !w.cell.revisions.reached(view.Revision) {
		return Step{}, published, true // a build saw the state before its change was published
	}
	print := w.unproven
	w.unproven = 0
	switch {
	case known && view.Revision > w.revision:
		if changes, known := w.cell.revisions.between(w.revision, view.Revision); known {
			return w.sendJoined(changes, view)
		}
	case known && view.Ring.Fingerprint() == print:
		return Step{}, nil, false
	}
	w.revision = 0
	return Step{}, nil, false
}

// sendJoined gives the changes up to a ring as one. It is kept for the next
// watcher, because those that lost one node go on at another together.
func (w *GroupWatch) sendJoined(changes []*GroupChange, view *RingView) (Step, <-chan struct{}, bool) {
	c := w.cell.lastJoin.Load()
	if c == nil || c.From != w.revision || c.Revision != view.Revision {
		c = joined(changes)
		c.Fingerprint = view.Ring.Fingerprint()
		w.cell.lastJoin.Store(c)
	}
	w.revision = c.Revision
	return Step{Group: w.name, Changes: []*GroupChange{c}}, nil, true
}

// Level tells whether the watcher has been given all of the group that is in a
// state: a ring that is still under construction is not.
func (w *GroupWatch) Level(s *State) bool {
	g := s.Group(w.name)
	if g == nil {
		return w.told
	}
	return !w.told && w.cell == g.cell && w.unproven == 0 && w.revision >= g.Revision
}

// PrefixWatch follows all groups whose names start with a prefix. It is for
// one goroutine.
type PrefixWatch struct {
	machine *Machine
	prefix  string
	timing  Timing
	hub     *hub
	seen    uint64
	started bool
	groups  map[string]*GroupWatch
	queue   []string // groups to look at
	queued  map[string]bool
}

// WatchPrefix returns a watcher that has seen what it knows of: groups at
// revisions. Of those that do not exist it is told, too.
func (m *Machine) WatchPrefix(prefix string, timing Timing, known ...KnownGroup) *PrefixWatch {
	w := &PrefixWatch{
		machine: m, prefix: prefix, timing: timing, hub: &m.rings.hub,
		groups: make(map[string]*GroupWatch), queued: make(map[string]bool),
	}
	if timing == AtOnce {
		w.hub = &m.hub
	}
	for _, k := range known {
		w.groups[k.Name] = m.WatchGroup(k, timing)
	}
	return w
}

// KnownGroup is what a watcher has seen of a group: a revision, at which the
// ring had that fingerprint.
type KnownGroup struct {
	Name        string
	Revision    uint64
	Fingerprint uint64
}

// stepsAtOnce bounds the steps that a watcher takes at a time.
const stepsAtOnce = 16

// Poll returns the next steps, few at a time, or a channel that is closed when
// to look again.
func (w *PrefixWatch) Poll() ([]Step, <-chan struct{}) {
	for {
		names, next, wake, ok := w.hub.since(w.seen)
		if !ok || !w.started {
			names = w.all()
		}
		w.seen, w.started = next, true
		for _, name := range names {
			w.enqueue(name)
		}
		if len(w.queue) == 0 {
			return nil, wake
		}
		if steps := w.steps(); len(steps) > 0 {
			return steps, nil
		}
	}
}

func (w *PrefixWatch) enqueue(name string) {
	if strings.HasPrefix(name, w.prefix) && !w.queued[name] {
		w.queued[name] = true
		w.queue = append(w.queue, name)
	}
}

// all names the groups there are and those that this watcher knows of.
func (w *PrefixWatch) all() []string {
	var names []string
	for g := range w.machine.State().Groups {
		names = append(names, g.Name)
	}
	for name := range w.groups {
		if w.machine.State().Group(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// steps takes groups off the queue, each for as long as there are steps of it.
func (w *PrefixWatch) steps() []Step {
	var steps []Step
	for len(w.queue) > 0 && len(steps) < stepsAtOnce {
		name := w.queue[0]
		g := w.groups[name]
		if g == nil {
			g = w.machine.WatchGroup(KnownGroup{Name: name}, w.timing)
			w.groups[name] = g
		}
		if step, wake := g.Poll(); wake == nil {
			steps = append(steps, step)
			continue
		}
		w.queue = w.queue[1:]
		delete(w.queued, name)
		if g.told {
			delete(w.groups, name) // it does not exist any more
		}
	}
	return steps
}

// Level tells whether the watcher has been given all of its groups that is in a
// state.
func (w *PrefixWatch) Level(s *State) bool {
	if !w.started || len(w.queue) > 0 {
		return false
	}
	for g := range s.Groups {
		if own := w.groups[g.Name]; strings.HasPrefix(g.Name, w.prefix) && (own == nil || !own.Level(s)) {
			return false
		}
	}
	return true
}

// NodesWatch follows the nodes and the leader. It is for one goroutine.
type NodesWatch struct {
	machine *Machine
	last    *State
}

// WatchNodes returns a watcher that has seen nothing.
func (m *Machine) WatchNodes() *NodesWatch { return &NodesWatch{machine: m} }

// Poll returns the state if its nodes or its leader are not those of the last
// one that it returned, or a channel that is closed when to look again.
func (w *NodesWatch) Poll() (*State, <-chan struct{}) {
	changed := w.machine.nodesChanged()
	s := w.machine.State()
	if w.last != nil && w.last.sameNodes(s) {
		return nil, changed
	}
	w.last = s
	return s, nil
}
