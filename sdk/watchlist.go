package sdk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// GroupsEvent is how the list of groups changed since the last event.
type GroupsEvent struct {
	// Reset: Groups has all groups and replaces earlier events.
	Reset bool
	// Rebuilt: the cluster lost its log; the event is a Reset.
	Rebuilt bool
	// Index is the applied index of the log that the list was read at.
	Index uint64
	// Groups whose configuration, size or revision changed, ordered by name.
	Groups []Group
	// Removed has the names of deleted groups.
	Removed []string

	// Err: the watch gets nothing, for this reason, and keeps trying. Recovered: the
	// outage is over. Such an event has no change.
	Err       error
	Recovered bool
}

// NodesEvent lists the cluster's nodes as they are now.
type NodesEvent struct {
	// Rebuilt: the cluster lost its log.
	Rebuilt bool
	Index   uint64
	// Leader is the id of the leader, from the log.
	Leader string
	Nodes  []Node

	// Err: the watch gets nothing, for this reason, and keeps trying. Recovered: the
	// outage is over. Such an event repeats the last list.
	Err       error
	Recovered bool
}

// Node is one node of the cluster.
type Node struct {
	ID string
	// Bind is the address for other nodes, Addr the one for clients.
	Bind    string
	Addr    string
	Version string
	// Zone is the failure zone that the node was started in; empty if it names none, or
	// the cluster is below feature level 2.
	Zone string
}

// nodesGroup is the group of the cluster's nodes.
const nodesGroup = "registry-group"

// minIndex is the applied index below which no list is accepted.
type minIndex struct {
	c       *Client
	index   uint64
	rebuilt bool
}

// check returns errBehind for a list of an older index, unless the leader says
// that the log is shorter than it was.
func (m *minIndex) check(ctx context.Context, index uint64) error {
	if index >= m.index {
		return nil
	}
	r, err := m.c.groupReceipt(ctx, nodesGroup) // any token may read it
	if err != nil {
		return fmt.Errorf("%w, and the leader did not answer: %w", errBehind, err)
	}
	if r.Index >= m.index || index < r.Index {
		return errBehind
	}
	m.rebuilt = true
	return nil
}

func (m *minIndex) commit(index uint64) {
	m.index, m.rebuilt = index, false
	m.c.observe(index)
}

// WatchGroups follows the list of groups, without their members. The first
// event has all groups there are, and may be empty. The watch ends with ctx.
func (c *Client) WatchGroups(ctx context.Context) (*Watch[GroupsEvent], error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	l := &groupList{groups: map[string]Group{}}
	outage := func(err error) GroupsEvent { return GroupsEvent{Index: l.index, Err: err, Recovered: err == nil} }
	return newWatch(ctx, c, l.event, outage, func(ctx context.Context, w *Watch[GroupsEvent]) error {
		lowest := &minIndex{c: c}
		f := listFollower(c, "groups", &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Groups{Groups: true}}, w)
		f.handle = func(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
			list := e.GetGroups()
			if list == nil {
				return nil
			}
			if err := lowest.check(ctx, list.GetIndex()); err != nil {
				return err
			}
			w.change(func() { l.apply(list, s.events == 0, lowest.rebuilt) })
			lowest.commit(list.GetIndex())
			return nil
		}
		return f.run(ctx)
	})
}

// listFollower makes a follower for a watch that gets the whole list on every stream.
func listFollower[T any](c *Client, what string, req *registrypb.WatchRequest, w *Watch[T]) *follower {
	return &follower{
		c: c, what: what, every: c.cfg.progress, progress: func(asOf time.Time) { w.staleness.confirm(asOf) }, reportOutage: w.reportOutage,
		request: func() *registrypb.WatchRequest { return &registrypb.WatchRequest{Target: req.Target} },
	}
}

// groupList is the newest list of groups and the changes not yet shown.
type groupList struct {
	groups map[string]Group
	index  uint64

	started, shown bool
	reset, rebuilt bool
	changed        map[string]bool // names; nil after an event, since an emptied map keeps its size
}

// apply applies an event; a complete one has all groups.
func (l *groupList) apply(list *registrypb.GroupList, complete, rebuilt bool) {
	l.started, l.index = true, list.GetIndex()
	l.rebuilt = l.rebuilt || rebuilt
	l.reset = l.reset || rebuilt
	if l.changed == nil {
		l.changed = map[string]bool{}
	}
	removed := map[string]bool{}
	if complete {
		for name := range l.groups {
			removed[name] = true
		}
	}
	for _, name := range list.GetRemoved() {
		removed[name] = true
	}
	for _, g := range list.GetGroups() {
		delete(removed, g.GetName())
		if now := groupFromProto(g); l.groups[now.Name] != now {
			l.groups[now.Name] = now
			l.changed[now.Name] = true
		}
	}
	for name := range removed {
		delete(l.groups, name)
		l.changed[name] = true
	}
	if len(l.changed) > 2*len(l.groups)+changesKept {
		l.reset = true
	}
	if l.reset {
		l.changed = nil
	}
}

func (l *groupList) event() (GroupsEvent, bool) {
	if !l.started || l.shown && !l.reset && len(l.changed) == 0 {
		return GroupsEvent{}, false
	}
	e := GroupsEvent{Reset: l.reset || !l.shown, Rebuilt: l.rebuilt, Index: l.index}
	names := slices.Sorted(maps.Keys(l.changed))
	if e.Reset {
		names = slices.Sorted(maps.Keys(l.groups))
	}
	for _, name := range names {
		if g, exists := l.groups[name]; exists {
			e.Groups = append(e.Groups, g)
		} else {
			e.Removed = append(e.Removed, name)
		}
	}
	l.shown, l.reset, l.rebuilt, l.changed = true, false, false, nil
	return e, true
}

// WatchNodes follows the cluster's nodes and its leader. The watch ends with ctx.
func (c *Client) WatchNodes(ctx context.Context) (*Watch[NodesEvent], error) {
	return c.watchNodes(ctx, c.cfg.progress)
}

// watchNodes sets how often a node confirms an unchanged list.
func (c *Client) watchNodes(ctx context.Context, every time.Duration) (*Watch[NodesEvent], error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	var last NodesEvent
	var pending, rebuilt bool
	poll := func() (NodesEvent, bool) {
		if !pending {
			return NodesEvent{}, false
		}
		e := last
		e.Rebuilt = rebuilt
		e.Nodes = slices.Clone(last.Nodes)
		pending, rebuilt = false, false
		return e, true
	}
	outage := func(err error) NodesEvent {
		e := last
		e.Nodes, e.Err, e.Recovered = slices.Clone(last.Nodes), err, err == nil
		return e
	}
	return newWatch(ctx, c, poll, outage, func(ctx context.Context, w *Watch[NodesEvent]) error {
		lowest := &minIndex{c: c}
		f := listFollower(c, "nodes", &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Nodes{Nodes: true}}, w)
		f.every = every
		f.handle = func(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
			list := e.GetNodes()
			if list == nil {
				return nil
			}
			if err := lowest.check(ctx, list.GetIndex()); err != nil {
				return err
			}
			w.change(func() {
				now := nodesFromProto(list)
				same := now.Leader == last.Leader && slices.Equal(now.Nodes, last.Nodes) && last.Index != 0
				last, pending, rebuilt = now, pending || !same || lowest.rebuilt, rebuilt || lowest.rebuilt
			})
			lowest.commit(list.GetIndex())
			return nil
		}
		return f.run(ctx)
	})
}

func nodesFromProto(l *registrypb.NodeList) NodesEvent {
	e := NodesEvent{Index: l.GetIndex(), Leader: l.GetLeader()}
	for _, n := range l.GetNodes() {
		e.Nodes = append(e.Nodes, Node{ID: n.GetId(), Bind: n.GetBind(), Addr: n.GetAddr(), Version: n.GetVersion(), Zone: n.GetZone()})
	}
	return e
}

// WatchPrefix follows all groups whose names start with prefix, new ones included;
// an empty prefix means all groups. Each event is of one group, and events of one
// group are in order. The watch ends with ctx.
func (c *Client) WatchPrefix(ctx context.Context, prefix string) (*Watch[GroupEvent], error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	if err := checkText("watch", "prefix", prefix); err != nil {
		return nil, err
	}
	p := &prefixWatch{c: c, prefix: prefix, trackers: map[string]*tracker{}, cells: map[string]*groupCell{}}
	return newWatch(ctx, c, p.event, new(groupCell).outage, p.run)
}

// prefixWatch has a tracker for each group. Cells and queue are guarded by the
// mutex of the watch.
type prefixWatch struct {
	c            *Client
	prefix       string
	trackers     map[string]*tracker
	cells        map[string]*groupCell
	queue        []*groupCell // with pending, each once
	cluster      string       // of the newest snapshot
	lastDeletion uint64       // index of the newest deletion in that cluster
}

// Bounds of the known groups in the request of a new stream.
const (
	maxKnownGroups = 10_000
	maxKnownBytes  = 512 << 10
)

// request resumes from the known groups, within the bounds. Other groups start with
// a snapshot, and so do those of another cluster id.
func (p *prefixWatch) request() *registrypb.WatchRequest {
	r := &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Prefix{Prefix: p.prefix}, ClusterId: p.cluster}
	room := maxKnownBytes
	for name, t := range p.trackers {
		own := t.request()
		if own.Revision == 0 || own.ClusterId != p.cluster {
			continue
		}
		if room -= len(name) + 32; room < 0 || len(r.Known) == maxKnownGroups {
			break
		}
		r.Known = append(r.Known, &registrypb.KnownGroup{Group: name, Revision: own.Revision, Fingerprint: own.Fingerprint})
	}
	return r
}

func (p *prefixWatch) event() (GroupEvent, bool) {
	if len(p.queue) == 0 {
		return GroupEvent{}, false
	}
	cell := p.queue[0]
	p.queue = p.queue[1:]
	e, ok := cell.event()
	if cell.last.unknown {
		delete(p.cells, cell.group)
	}
	return e, ok
}

func (p *prefixWatch) run(ctx context.Context, w *Watch[GroupEvent]) error {
	f := listFollower(p.c, "groups "+p.prefix+"*", nil, w)
	f.request = p.request
	f.handle = func(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
		if s.events == 0 && len(p.trackers) > 0 {
			if err := p.vanished(ctx, w); err != nil {
				return err
			}
		}
		name := e.GetSnapshot().GetGroup() + e.GetDelta().GetGroup() + e.GetUnknownGroup()
		if !strings.HasPrefix(name, p.prefix) || name == "" {
			return nil
		}
		return p.take(ctx, s, name, e, w)
	}
	return f.run(ctx)
}

func (p *prefixWatch) take(ctx context.Context, s *session, name string, e *registrypb.WatchEvent, w *Watch[GroupEvent]) error {
	t := p.trackers[name]
	if t == nil && e.GetUnknownGroup() != "" {
		return nil // never shown, or its deletion was shown by vanished
	}
	if t == nil {
		if err := p.checkReturned(ctx, name, e.GetSnapshot()); err != nil {
			return err
		}
		t = &tracker{c: p.c, group: name}
		p.trackers[name] = t
	}
	st, err := t.stepOf(ctx, e)
	t.report(s, err)
	if errors.Is(err, errGap) { // a new stream begins with a snapshot
		t.resync = true
	}
	if err != nil || st == nil {
		return err
	}
	if st.reset && st.cluster != "" {
		if p.cluster != st.cluster {
			p.lastDeletion = 0
		}
		p.cluster = st.cluster
	}
	p.apply(t, st, w)
	return nil
}

func (p *prefixWatch) apply(t *tracker, st *step, w *Watch[GroupEvent]) {
	w.change(func() {
		cell := p.cells[t.group]
		if cell == nil {
			cell = &groupCell{group: t.group}
			p.cells[t.group] = cell
		}
		if !cell.pending {
			p.queue = append(p.queue, cell)
		}
		cell.apply(st)
	})
	t.commit(st)
	if st.unknown {
		delete(p.trackers, t.group)
	}
	if st.deleted {
		p.lastDeletion = max(p.lastDeletion, st.index)
	}
}

// checkReturned refuses a new group of a node that may be behind the newest deletion,
// unless the leader has the same revision: the group was deleted, and may have been
// created again since. A node that is not behind is asked again.
func (p *prefixWatch) checkReturned(ctx context.Context, name string, s *registrypb.GroupSnapshot) error {
	if s.GetIndex() >= p.lastDeletion || s.GetClusterId() != p.cluster {
		return nil
	}
	g, _, err := p.c.Group(ctx, name, Linearizable())
	if errors.Is(err, ErrUnknownGroup) || err == nil && g.Revision > s.GetRevision() {
		return errBehind
	}
	if err != nil {
		return fmt.Errorf("%w, and the leader did not answer: %w", errBehind, err)
	}
	return nil
}

// vanished shows the groups that no longer exist: a new stream reports only existing
// ones. The index of each deletion is that of the page of the leader's list that
// lacks the group, since at an earlier page's index it may still have existed.
func (p *prefixWatch) vanished(ctx context.Context, w *Watch[GroupEvent]) error {
	known := slices.Sorted(maps.Keys(p.trackers))
	missing := map[string]*registrypb.Receipt{}
	err := p.c.groupsPages(ctx, p.prefix, readOptions{linearizable: true}, func(page *registrypb.GroupsResponse) {
		exists, end := map[string]bool{}, ""
		for _, g := range page.GetGroups() {
			exists[g.GetName()], end = true, g.GetName()
		}
		for len(known) > 0 && (known[0] <= end || page.GetNextPageToken() == "") {
			if !exists[known[0]] {
				missing[known[0]] = page.GetReceipt()
			}
			known = known[1:]
		}
	})
	if err != nil {
		return fmt.Errorf("%w, and the leader did not answer: %w", errBehind, err)
	}
	lost := false
	for name, r := range missing {
		t := p.trackers[name]
		deleted := t.deletedAt(r.GetIndex(), r.GetClusterId())
		lost = lost || !deleted
		p.apply(t, &step{unknown: true, deleted: deleted, rebuilt: !deleted, index: r.GetIndex(), cluster: r.GetClusterId()}, w)
	}
	if lost { // this stream may have begun before, with the groups that are gone
		return errBehind
	}
	return nil
}
