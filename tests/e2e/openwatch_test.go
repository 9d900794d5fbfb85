package e2e

import (
	"context"
	"fmt"
	"sync"

	"github.com/werbenhu/registry/sdk"
)

// openWatch folds what a watch of all groups of the load shows.
type openWatch struct {
	node string // where it began

	mu     sync.Mutex // guards the rest
	events int
	groups map[string]*watchedGroup
	gaps   []string
}

// watchedGroup is a group as its events make it.
type watchedGroup struct {
	revision uint64
	view     map[string]sdk.Member
	created  map[string]uint64 // index of the first event's member, also of those that left
	gone     map[string]bool   // was there, and left
}

// index is the log index at which a member was created; 0 if no event had it.
func (g *watchedGroup) index(id string) uint64 {
	if g == nil {
		return 0
	}
	return g.created[id]
}

func (w *openWatch) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("the watch that began at %s: %d events, %d gaps", w.node, w.events, len(w.gaps))
}

func (w *openWatch) follow(ctx context.Context, watch *sdk.Watch[sdk.GroupEvent]) {
	for {
		e, err := watch.Next(ctx)
		if err != nil {
			return
		}
		w.mu.Lock()
		w.events++
		if err := w.fold(e); err != nil {
			w.gaps = append(w.gaps, fmt.Sprintf("group %q: %v", e.Group, err))
		}
		w.mu.Unlock()
	}
}

// fold applies an event, and says what is wrong with it.
func (w *openWatch) fold(e sdk.GroupEvent) error {
	if e.Err != nil {
		return fmt.Errorf("an outage: %w", e.Err)
	}
	if e.Recovered {
		return nil
	}
	g := w.groups[e.Group]
	begins := g == nil
	if begins {
		g = &watchedGroup{view: make(map[string]sdk.Member), created: make(map[string]uint64), gone: make(map[string]bool)}
		w.groups[e.Group] = g
	}
	from := g.revision
	g.revision = e.Revision
	for _, m := range e.Put {
		if g.created[m.ID] == 0 {
			g.created[m.ID] = m.CreatedIndex
		}
		g.view[m.ID] = m
	}
	for _, id := range e.Removed {
		delete(g.view, id)
		g.gone[id] = true
	}
	switch {
	case e.Rebuilt || e.Unknown:
		return fmt.Errorf("rebuilt %v, unknown %v", e.Rebuilt, e.Unknown)
	case e.Reset != begins:
		return fmt.Errorf("the whole group at revision %d after %d: %v", e.Revision, from, e.Reset)
	case e.From != from || e.Revision <= from:
		return fmt.Errorf("an event from revision %d to %d after %d", e.From, e.Revision, from)
	}
	for _, m := range e.Put {
		if m.ModifiedIndex > e.Revision || !begins && m.ModifiedIndex <= from {
			return fmt.Errorf("%s, changed at %d, in an event from revision %d to %d", m.ID, m.ModifiedIndex, from, e.Revision)
		}
	}
	return nil
}

// behind says which group the watch does not have at its last revision.
func (w *openWatch) behind(groups map[string]sdk.Group) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, g := range groups {
		if have := w.groups[name]; have == nil || have.revision < g.Revision {
			return fmt.Errorf("the watch of %s has %v of group %s, which is at revision %d", w.node, have, name, g.Revision)
		}
	}
	return nil
}

// check compares the watch with the final members and with what was acknowledged. The
// caller holds l.mu.
func (w *openWatch) check(l *openLoad, groups map[string]sdk.Group, members map[string]sdk.Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bad := func(kind, format string, args ...any) {
		l.bad("the watch that began at "+w.node+" "+kind, format, args...)
	}
	for _, gap := range w.gaps {
		bad("has a gap", "%s", gap)
	}
	total := 0
	for name, g := range groups {
		have := w.groups[name]
		total += len(have.view)
		if have.revision != g.Revision {
			bad("has a group at another revision", "%s at %d, and it is at %d", name, have.revision, g.Revision)
		}
		for id, m := range have.view {
			if final, there := members[name+"/"+id]; !there || final.CreatedIndex != m.CreatedIndex || final.ModifiedIndex != m.ModifiedIndex {
				bad("has another member", "%v, and the cluster has %v", m, final)
			}
		}
	}
	if total != len(members) {
		bad("has another number of members", "%d, and the cluster has %d", total, len(members))
	}
	for _, op := range l.ops {
		g := w.groups[op.group]
		switch {
		case op.acked.IsZero():
		case g.created[op.id] == 0 && !g.gone[op.id]:
			bad("never had a registration that was acknowledged", "%s", op.key())
		case !op.left.IsZero() && !g.gone[op.id]:
			bad("never had the end of a member, which was acknowledged", "%s", op.key())
		case op.leave.IsZero() && g.gone[op.id]:
			bad("saw a live member leave", "%s", op.key())
		}
	}
	for g := range leasedGroups {
		have := w.groups[leasedGroup(g)]
		for id := range have.gone {
			bad("saw a member leave whose lease is renewed", "%s", id)
		}
		for id, m := range have.view {
			if m.CreatedIndex != have.created[id] || m.ModifiedIndex != m.CreatedIndex {
				bad("saw a member change whose lease is renewed", "%v", m)
			}
		}
	}
}
