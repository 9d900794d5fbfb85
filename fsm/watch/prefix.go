package watch

import (
	"slices"
	"strings"

	"github.com/werbenhu/registry/fsm"
)

// stepsAtOnce bounds the steps that a watcher of many groups takes at a time.
const stepsAtOnce = 16

// PrefixWatch follows all groups whose names start with a prefix. It is for one
// goroutine.
type PrefixWatch struct {
	hub     *Hub
	prefix  string
	seen    uint64
	started bool
	groups  map[string]*GroupWatch
	queue   []string // groups to look at
	queued  map[string]bool
	progress
}

// Prefix returns a watcher that resumes from positions in groups. It also gets which
// of these groups do not exist.
func (h *Hub) Prefix(prefix string, known ...Known) *PrefixWatch {
	w := &PrefixWatch{hub: h, prefix: prefix, groups: make(map[string]*GroupWatch), queued: make(map[string]bool)}
	for _, k := range known {
		w.groups[k.Group] = h.Group(k)
	}
	return w
}

// Poll returns the next steps, few at a time, or a channel that is closed when to
// poll again.
func (w *PrefixWatch) Poll() ([]Step, <-chan struct{}) {
	w.progress = progress{}
	for {
		s, wake := w.look()
		steps := w.steps()
		if len(w.queue) == 0 {
			w.progress.reach(s)
		}
		if len(steps) > 0 {
			return steps, nil
		}
		if len(w.queue) == 0 {
			return nil, wake
		}
	}
}

// look queues the groups that changed up to the state.
func (w *PrefixWatch) look() (s *fsm.State, wake <-chan struct{}) {
	w.hub.mu.Lock()
	names, ok := w.hub.changedSince(w.seen)
	w.seen, s, wake = w.hub.total, w.hub.state, wait(&w.hub.wakes.any)
	w.hub.mu.Unlock()
	if !ok || !w.started {
		names = w.all(s)
	}
	w.started = true
	for _, name := range names {
		if strings.HasPrefix(name, w.prefix) && !w.queued[name] {
			w.queued[name] = true
			w.queue = append(w.queue, name)
		}
	}
	return s, wake
}

// all returns the names of all groups, and of those that this watcher has.
func (w *PrefixWatch) all(s *fsm.State) []string {
	var names []string
	for g := range s.GroupsFrom(w.prefix) {
		if !strings.HasPrefix(g.Name, w.prefix) {
			break
		}
		names = append(names, g.Name)
	}
	for name := range w.groups {
		if s.Group(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// steps takes groups off the queue, each after its last step.
func (w *PrefixWatch) steps() []Step {
	var steps []Step
	for len(w.queue) > 0 && len(steps) < stepsAtOnce {
		name := w.queue[0]
		g := w.groups[name]
		if g == nil {
			g = w.hub.Group(Known{Group: name})
			w.groups[name] = g
		}
		step, wake := g.Poll()
		if wake == nil {
			steps = append(steps, step)
			if !g.progress.ok {
				continue
			}
		}
		w.queue = w.queue[1:]
		delete(w.queued, name)
		if g.unknownSent {
			delete(w.groups, name) // it does not exist
		}
	}
	return steps
}
