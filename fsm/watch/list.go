package watch

import (
	"slices"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// ListPause is the least time between two lists of one GroupsWatch: while
// thousands of groups change, one that only lists them is told ten times a second.
const ListPause = 100 * time.Millisecond

// GroupsWatch follows the list of groups. It is for one goroutine.
type GroupsWatch struct {
	hub    *Hub
	seen   uint64
	known  map[string]bool
	paused <-chan struct{} // closed when the next list may be given
	level  level
}

// Groups returns a watcher that has seen nothing.
func (h *Hub) Groups() *GroupsWatch { return &GroupsWatch{hub: h} }

// List is the groups that changed, all of them in the first list, and the names
// of those that are gone.
type List struct {
	State   *fsm.State
	Groups  []*fsm.Group
	Removed []string
}

// Poll returns the next list, or a channel that is closed when to look again.
// The first list may be empty.
func (w *GroupsWatch) Poll() (*List, <-chan struct{}) {
	w.level = level{}
	if w.paused != nil {
		select {
		case <-w.paused:
			w.paused = nil
		default:
			return nil, w.paused
		}
	}
	w.hub.mu.Lock()
	names, ok := w.hub.changedSince(w.seen)
	s, wake := w.hub.state, wait(&w.hub.wakes.any)
	w.seen = w.hub.next
	w.hub.mu.Unlock()
	w.level.reach(s)
	list := w.list(s, names, ok)
	if list == nil {
		return nil, wake
	}
	done := make(chan struct{})
	time.AfterFunc(ListPause, func() { close(done) })
	w.paused = done
	return list, nil
}

// list is what to tell of the named groups, or of all when names are missing;
// nil for nothing.
func (w *GroupsWatch) list(s *fsm.State, names []string, complete bool) *List {
	l := &List{State: s}
	if w.known == nil || !complete {
		was := w.known
		w.known = make(map[string]bool, s.GroupCount())
		for g := range s.Groups {
			w.known[g.Name] = true
			l.Groups = append(l.Groups, g)
		}
		for name := range was {
			if !w.known[name] {
				l.Removed = append(l.Removed, name)
			}
		}
		slices.Sort(l.Removed)
		return l
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if g := s.Group(name); g != nil {
			w.known[name] = true
			l.Groups = append(l.Groups, g)
		} else if w.known[name] {
			delete(w.known, name)
			l.Removed = append(l.Removed, name)
		}
	}
	if len(l.Groups)+len(l.Removed) == 0 {
		return nil
	}
	return l
}

// Level returns the applied index up to which the watcher has been given
// everything, as of the last Poll; ok is false when more is to come.
func (w *GroupsWatch) Level() (index uint64, ok bool) { return w.level.index, w.level.ok }

// NodesWatch follows the nodes and the leader. It is for one goroutine.
type NodesWatch struct {
	hub   *Hub
	last  fsm.NodesVersion
	begun bool
	level level
}

// Nodes returns a watcher that has seen nothing.
func (h *Hub) Nodes() *NodesWatch { return &NodesWatch{hub: h} }

// Poll returns the state if its nodes or its leader are not those of the last
// one that it returned, or a channel that is closed when to look again.
func (w *NodesWatch) Poll() (*fsm.State, <-chan struct{}) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	s := w.hub.state
	w.level.reach(s)
	if w.begun && w.last == s.NodesVersion() {
		return nil, wait(&w.hub.wakes.nodes)
	}
	w.begun, w.last = true, s.NodesVersion()
	return s, nil
}

// Level returns the applied index up to which the watcher has been given everything.
func (w *NodesWatch) Level() (index uint64, ok bool) { return w.level.index, w.level.ok }
