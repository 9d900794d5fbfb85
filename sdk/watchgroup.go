package sdk

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// GroupEvent tells how a group changed since the last event of the watch.
type GroupEvent struct {
	Group string
	// Reset: forget what was known of the group; Put is all of it. The first
	// event is one, and each that follows a gap in what the nodes remember.
	Reset bool
	// Rebuilt: the cluster lost its log, and the group went back with it. The
	// event is a Reset, or says Unknown.
	Rebuilt bool
	// Unknown: the group does not exist. It may come to exist later.
	Unknown bool

	// From is the revision of the event before, Revision that of the group
	// now, and Index an applied index of the log at which the group was at it.
	From     uint64
	Revision uint64
	Index    uint64
	// Fingerprint of the ring of the group now, or 0 where the event came before
	// its node had built it: see WithFingerprints.
	Fingerprint uint64
	// VirtualNodes and Bound are the ring's parameters.
	VirtualNodes int
	Bound        int
	// Put has the members that are new or changed, ordered by id, and Removed
	// the ids of those that are gone; some of these may never have been shown.
	Put     []Member
	Removed []string
}

// changesKept bounds the names of changes that wait for a slow consumer: twice
// the group's members, and that many. Beyond, the consumer gets all members.
const changesKept = 1024

// groupCell is the newest state of a group and what of it was not yet shown.
type groupCell struct {
	group   string
	last    *step // the newest, without its members
	members []Member
	shown   uint64 // revision

	news, reset, rebuilt bool
	changed              map[string]bool // ids, unless reset
}

// apply takes a step over.
func (g *groupCell) apply(s *step) {
	g.members = merge(g.members, s)
	if s.unknown {
		g.members = nil
	}
	g.news = true
	g.rebuilt = g.rebuilt || s.rebuilt
	g.reset = g.reset || s.reset || s.unknown
	if !g.reset {
		if g.changed == nil {
			g.changed = map[string]bool{}
		}
		for _, m := range s.put {
			g.changed[m.ID] = true
		}
		for _, id := range s.removed {
			g.changed[id] = true
		}
		g.reset = len(g.changed) > 2*len(g.members)+changesKept
	}
	if g.reset {
		g.changed = nil
	}
	last := *s
	last.put, last.removed = nil, nil
	g.last = &last
}

// event returns what was not yet shown.
func (g *groupCell) event() (GroupEvent, bool) {
	if !g.news {
		return GroupEvent{}, false
	}
	s := g.last
	e := GroupEvent{
		Group: g.group, Reset: g.reset && !s.unknown, Rebuilt: g.rebuilt, Unknown: s.unknown,
		From: g.shown, Revision: s.revision, Index: s.index, Fingerprint: s.fingerprint,
		VirtualNodes: s.params.VirtualNodes, Bound: s.params.Bound,
	}
	for _, m := range g.members {
		if g.reset || g.changed[m.ID] {
			e.Put = append(e.Put, m)
			delete(g.changed, m.ID)
		}
	}
	for id := range g.changed {
		e.Removed = append(e.Removed, id)
	}
	slices.Sort(e.Removed)
	g.shown = s.revision
	g.news, g.reset, g.rebuilt, g.changed = false, false, false, nil
	return e, true
}

// WatchOption changes how a Watch or WatchPrefix works.
type WatchOption func(*watchOptions)

type watchOptions struct{ fingerprints bool }

// WithFingerprints makes every event name the fingerprint of the group's ring.
// It comes when the node has built that ring: some milliseconds later in a group
// of a thousand members, and under lasting change with others in one event.
func WithFingerprints() WatchOption { return func(o *watchOptions) { o.fingerprints = true } }

func watchOptionsOf(opts []WatchOption) (o watchOptions) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// track returns a tracker for the cell, of which it is the only writer.
func (o watchOptions) track(c *Client, cell *groupCell) *tracker {
	return &tracker{c: c, group: cell.group, atOnce: !o.fingerprints, state: func() (ring.Params, []Member) {
		return cell.last.params, cell.members
	}}
}

// Watch follows one group, which need not exist yet. The first event is the
// group as it is, or that it is unknown; the next ones come as soon as the node
// has applied a change. The watch ends with ctx.
func (c *Client) Watch(ctx context.Context, group string, opts ...WatchOption) (*Watch[GroupEvent], error) {
	if err := c.ready("watch", &registrypb.MembersRequest{Group: group}); err != nil {
		return nil, err
	}
	cell := &groupCell{group: group}
	return newWatch(ctx, c, cell.event, func(ctx context.Context, w *Watch[GroupEvent]) error {
		t := watchOptionsOf(opts).track(c, cell)
		f := &follower{
			c: c, what: "group " + group, every: c.cfg.progress, request: t.request,
			progress: func(asOf time.Time) {
				if t.started() {
					w.fresh.confirm(asOf)
				}
			},
			take: func(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
				t.probe(ctx, s, &w.fresh)
				return t.follow(ctx, s, e, cell, w)
			},
		}
		return f.run(ctx)
	})
}

// follow takes an event over for a watch.
func (t *tracker) follow(ctx context.Context, s *session, e *registrypb.WatchEvent, cell *groupCell, w *Watch[GroupEvent]) error {
	st, err := t.take(ctx, e)
	if err != nil || st == nil {
		return err
	}
	if !st.reset && !st.unknown && s.events == 0 {
		if err := checkResumed(cell.members, st); err != nil {
			t.resync = true
			return err
		}
	}
	w.change(func() { cell.apply(st) })
	t.commit(st)
	w.fresh.reached(st.revision)
	return nil
}

// checkResumed builds the ring that the first delta of a resumed stream leads
// to. A cluster that was rebuilt may by chance know a revision of that number. A
// delta without a fingerprint comes from a node that has compared the one that
// the stream was opened with.
func checkResumed(members []Member, s *step) error {
	if s.fingerprint == 0 {
		return nil
	}
	r, err := ring.New(s.params, ringMembers(merge(members, s)))
	if err != nil {
		return fmt.Errorf("%w: %w", errGap, err)
	}
	if r.Fingerprint() != s.fingerprint {
		return fmt.Errorf("%w: revision %d makes ring %016x, the node says %016x", errGap, s.revision, r.Fingerprint(), s.fingerprint)
	}
	return nil
}
