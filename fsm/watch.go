package fsm

import (
	"context"
	"strings"
)

// Step is what a watcher has to be told next: either changes that lead on from
// what it has, or a view to start over from, or that the group does not exist.
type Step struct {
	Group   string
	Changes []*RingChange
	View    *RingView
	Unknown bool
}

// GroupWatch follows one group, which need not exist yet. It is for one
// goroutine. It holds a position and no changes, so one that is not asked for
// long costs nothing and is told to start over.
type GroupWatch struct {
	machine  *Machine
	name     string
	cell     *ringCell
	revision uint64
	told     bool // that the group does not exist
}

// WatchGroup returns a watcher that has seen the given revision of the group
// with the given ring fingerprint; revision 0: nothing.
func (m *Machine) WatchGroup(name string, revision, fingerprint uint64) *GroupWatch {
	w := &GroupWatch{machine: m, name: name, revision: revision}
	if g := m.State().Group(name); g != nil && revision != 0 {
		if v := g.Ring(); v != nil && v.Revision == revision && v.Ring.Fingerprint() != fingerprint {
			w.revision = 0
		}
	}
	return w
}

// Next waits for the next step.
func (w *GroupWatch) Next(ctx context.Context) (Step, error) {
	for {
		step, wake := w.poll()
		if wake == nil {
			return step, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return Step{}, context.Cause(ctx)
		}
	}
}

// poll returns the next step, or a channel that is closed when to look again.
func (w *GroupWatch) poll() (Step, <-chan struct{}) {
	created := w.machine.groupCreated()
	g := w.machine.State().Group(w.name)
	if g == nil {
		if w.told {
			return Step{}, created
		}
		w.told, w.revision, w.cell = true, 0, nil
		return Step{Group: w.name, Unknown: true}, nil
	}
	w.told = false
	w.cell = g.cell
	changes, wake, ok := w.cell.feed.after(w.revision)
	if again := w.machine.State().Group(w.name); again == nil || again.cell != w.cell {
		return w.poll() // a snapshot replaced the group: nothing wakes this cell any more
	}
	if ok && w.revision != 0 {
		if len(changes) == 0 {
			return Step{}, wake
		}
		w.revision = changes[len(changes)-1].Revision
		return Step{Group: w.name, Changes: changes}, nil
	}
	view := w.cell.view.Load()
	if view == nil {
		return Step{}, wake // its first ring is being built
	}
	w.revision = view.Revision
	return Step{Group: w.name, View: view}, nil
}

// PrefixWatch follows all groups whose names start with a prefix. It is for
// one goroutine.
type PrefixWatch struct {
	machine *Machine
	prefix  string
	seen    uint64
	started bool
	groups  map[string]*GroupWatch
}

// WatchPrefix returns a watcher that has seen nothing.
func (m *Machine) WatchPrefix(prefix string) *PrefixWatch {
	return &PrefixWatch{machine: m, prefix: prefix, groups: make(map[string]*GroupWatch)}
}

// Next waits for steps of one or more groups. The first answer has every group
// that exists, and may be empty.
func (w *PrefixWatch) Next(ctx context.Context) ([]Step, error) {
	for {
		names, next, wake, ok := w.machine.rings.hub.since(w.seen)
		if !ok || !w.started {
			names = w.all()
		}
		w.seen = next
		steps := w.steps(names)
		if len(steps) > 0 || !w.started {
			w.started = true
			return steps, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
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
	return names
}

func (w *PrefixWatch) steps(names []string) []Step {
	var steps []Step
	for _, name := range names {
		if !strings.HasPrefix(name, w.prefix) {
			continue
		}
		g := w.groups[name]
		if g == nil {
			g = w.machine.WatchGroup(name, 0, 0)
			w.groups[name] = g
		}
		for {
			step, wake := g.poll()
			if wake != nil {
				break
			}
			steps = append(steps, step)
		}
		if g.told {
			delete(w.groups, name) // it does not exist any more
		}
	}
	return steps
}

// WaitNodes waits for a state whose nodes or whose leader differ from the
// given state's. A nil state differs from all.
func (m *Machine) WaitNodes(ctx context.Context, old *State) (*State, error) {
	for {
		s := m.State()
		if old == nil || s.nodes != old.nodes || s.term != old.term || s.leader != old.leader {
			return s, nil
		}
		if _, err := m.WaitIndex(ctx, s.index+1); err != nil {
			return nil, err
		}
	}
}
