package sdk

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// GroupEvent is how a group changed since the last event of the watch.
type GroupEvent struct {
	Group string
	// Reset: Put has all members of the group and replaces earlier events. The first
	// event is a Reset, and so is one after a gap in the nodes' history.
	Reset bool
	// Rebuilt: the cluster lost its log, and the group went back. The event is a
	// Reset or Unknown.
	Rebuilt bool
	// Unknown: the group does not exist, or was deleted: then Rebuilt is not set. If
	// it is created later, it has revisions above Index.
	Unknown bool

	// From is the revision of the event before, Revision that of the group
	// now, and Index an applied index of the log at which the group was at it.
	From     uint64
	Revision uint64
	Index    uint64
	// Fingerprint of the inputs of the group's ring.
	Fingerprint uint64
	// VirtualNodes and Bound are the ring's parameters.
	VirtualNodes int
	Bound        int
	// Put has the members that are new or changed, ordered by id, and Removed the
	// ids of those that left; some of these were in no event.
	Put     []Member
	Removed []string

	// Err: the watch gets nothing, for this reason, and keeps trying. Recovered: the
	// outage is over. Such an event has no change and may be the first one; for a
	// prefix it names no group.
	Err       error
	Recovered bool
}

// changesKept bounds the names of changes that wait for a slow consumer: twice the
// group's members plus this. Beyond the bound the consumer gets all members.
const changesKept = 1024

// groupCell is the newest state of a group and the changes not yet shown. A step and
// an event cost what they change, not what the group has.
type groupCell struct {
	group   string
	last    *step              // the newest, without its members
	members map[string]*Member // by id; each by itself, so that none keeps others in memory
	shown   uint64             // revision

	pending, reset, rebuilt bool
	changed                 map[string]bool // ids, unless reset
}

// apply makes the step's state the newest.
func (g *groupCell) apply(s *step) {
	g.pending = true
	g.rebuilt = g.rebuilt || s.rebuilt
	g.reset = g.reset || s.reset || s.unknown
	if s.reset || s.unknown || g.members == nil {
		g.members = make(map[string]*Member, len(s.put))
	}
	if g.changed == nil && !g.reset {
		g.changed = map[string]bool{}
	}
	for _, id := range s.removed {
		delete(g.members, id)
		g.note(id)
	}
	for _, m := range s.put { // wins over removed
		g.members[m.ID] = &m
		g.note(m.ID)
	}
	g.reset = g.reset || len(g.changed) > 2*len(g.members)+changesKept
	if g.reset {
		g.changed = nil
	}
	last := *s
	last.put, last.removed, last.added, last.left = nil, nil, nil, nil
	g.last = &last
}

// note notes a change, unless the next event has all members.
func (g *groupCell) note(id string) {
	if !g.reset {
		g.changed[id] = true
	}
}

// event returns the changes not yet shown.
func (g *groupCell) event() (GroupEvent, bool) {
	if !g.pending {
		return GroupEvent{}, false
	}
	s := g.last
	e := GroupEvent{
		Group: g.group, Reset: g.reset && !s.unknown, Rebuilt: g.rebuilt, Unknown: s.unknown,
		From: g.shown, Revision: s.revision, Index: s.index, Fingerprint: s.fingerprint,
		VirtualNodes: s.params.VirtualNodes, Bound: s.params.Bound,
	}
	ids := slices.Sorted(maps.Keys(g.changed))
	if g.reset {
		ids = slices.Sorted(maps.Keys(g.members))
	}
	for _, id := range ids {
		if m := g.members[id]; m != nil {
			e.Put = append(e.Put, *m)
		} else {
			e.Removed = append(e.Removed, id)
		}
	}
	g.shown = s.revision
	g.pending, g.reset, g.rebuilt, g.changed = false, false, false, nil
	return e, true
}

// outage is the event of an outage, or with nil of its end.
func (g *groupCell) outage(err error) GroupEvent {
	return GroupEvent{Group: g.group, From: g.shown, Revision: g.shown, Err: err, Recovered: err == nil}
}

// Watch follows one group, which need not exist yet. The first event is the whole
// group, or Unknown; the next ones come as soon as the node has applied a change.
// The watch ends with ctx.
func (c *Client) Watch(ctx context.Context, group string) (*Watch[GroupEvent], error) {
	if err := c.ready("watch", &registrypb.MembersRequest{Group: group}); err != nil {
		return nil, err
	}
	cell := &groupCell{group: group}
	return newWatch(ctx, c, cell.event, cell.outage, func(ctx context.Context, w *Watch[GroupEvent]) error {
		t := &tracker{c: c, group: group}
		f := &follower{
			c: c, what: "group " + group, every: c.cfg.progress, request: t.request, reportOutage: w.reportOutage,
			progress: func(asOf time.Time) {
				if t.hasState() {
					w.staleness.confirm(asOf)
				}
			},
			handle: func(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
				st, err := t.stepOf(ctx, e)
				if err != nil || st == nil {
					t.report(s, err)
					return err
				}
				w.change(func() { cell.apply(st) })
				t.commit(st)
				return nil
			},
		}
		return f.run(ctx)
	})
}
