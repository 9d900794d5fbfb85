package watch

import (
	"slices"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// ListPause is the least time between two lists of one GroupsWatch, because thousands
// of groups may change all the time.
const ListPause = 100 * time.Millisecond

// GroupsWatch follows the list of groups. It is for one goroutine.
type GroupsWatch struct {
	hub    *Hub
	seen   uint64
	known  map[string]bool
	paused <-chan struct{} // closed when the next list is due
	progress
}

// Groups returns a watcher without a position.
func (h *Hub) Groups() *GroupsWatch { return &GroupsWatch{hub: h} }

// List is the changed groups, or all in the first list, and the names of deleted
// ones.
type List struct {
	State   *fsm.State
	Groups  []*fsm.Group
	Removed []string
}

// Poll returns the next list, or a channel that is closed when to poll again.
// The first list may be empty.
func (w *GroupsWatch) Poll() (*List, <-chan struct{}) {
	w.progress = progress{}
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
	w.seen = w.hub.total
	w.hub.mu.Unlock()
	w.progress.reach(s)
	list := w.list(s, names, ok)
	if list == nil {
		return nil, wake
	}
	done := make(chan struct{})
	time.AfterFunc(ListPause, func() { close(done) })
	w.paused = done
	return list, nil
}

// list returns the changes of the named groups, or of all if the names are not
// complete; nil if there are none.
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

// NodesWatch follows the nodes and the leader. It is for one goroutine.
type NodesWatch struct {
	hub     *Hub
	last    fsm.NodesVersion
	started bool
	progress
}

// Nodes returns a watcher without a position.
func (h *Hub) Nodes() *NodesWatch { return &NodesWatch{hub: h} }

// Poll returns the state if its nodes or its leader differ from those of the last
// one that it returned, or a channel that is closed when to poll again.
func (w *NodesWatch) Poll() (*fsm.State, <-chan struct{}) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	s := w.hub.state
	w.progress.reach(s)
	if w.started && w.last == s.NodesVersion() {
		return nil, wait(&w.hub.wakes.nodes)
	}
	w.started, w.last = true, s.NodesVersion()
	return s, nil
}
