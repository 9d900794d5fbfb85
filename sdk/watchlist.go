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

// GroupsEvent tells how the list of groups changed since the last event.
type GroupsEvent struct {
	// Reset: forget the groups that were known; Groups has all.
	Reset bool
	// Rebuilt: the cluster lost its log; the event is a Reset.
	Rebuilt bool
	// Index is the applied index of the log that the list was read at.
	Index uint64
	// Groups whose configuration, size or revision changed, ordered by name.
	Groups []Group
	// Removed has the names of groups that are gone.
	Removed []string

	// Err: the watch has got nothing for some time, and why; it goes on trying.
	// Recovered: that is over. Such an event tells of no change.
	Err       error
	Recovered bool
}

// NodesEvent lists the cluster's nodes as they are now.
type NodesEvent struct {
	// Rebuilt: the cluster lost its log.
	Rebuilt bool
	Index   uint64
	// Leader is the id of the leader as of the log.
	Leader string
	Nodes  []Node

	// Err: the watch has got nothing for some time, and why; it goes on trying.
	// Recovered: that is over. Such an event lists what was known before.
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
}

// floor is the applied index below which no list is believed.
type floor struct {
	c       *Client
	index   uint64
	rebuilt bool
}

// check returns errBehind for a list of an older index, unless the leader says
// that the log is shorter than it was.
func (f *floor) check(ctx context.Context, index uint64) error {
	if index >= f.index {
		return nil
	}
	var r Receipt
	if _, err := f.c.Groups(ctx, Linearizable(), WithReceipt(&r)); err != nil {
		return fmt.Errorf("%w, and the leader cannot be asked: %w", errBehind, err)
	}
	if r.Index >= f.index || index < r.Index {
		return errBehind
	}
	f.rebuilt = true
	return nil
}

func (f *floor) commit(index uint64) {
	f.index, f.rebuilt = index, false
	f.c.observe(index)
}

// WatchGroups follows the list of groups, without their members. The first
// event has all groups there are, and may be empty. The watch ends with ctx.
func (c *Client) WatchGroups(ctx context.Context) (*Watch[GroupsEvent], error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	l := &groupList{groups: map[string]Group{}, news: map[string]bool{}}
	outage := func(err error) GroupsEvent { return GroupsEvent{Index: l.index, Err: err, Recovered: err == nil} }
	return newWatch(ctx, c, l.event, outage, func(ctx context.Context, w *Watch[GroupsEvent]) error {
		fl := &floor{c: c}
		f := listFollower(c, "groups", &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Groups{Groups: true}}, w)
		f.take = func(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
			list := e.GetGroups()
			if list == nil {
				return nil
			}
			if err := fl.check(ctx, list.GetIndex()); err != nil {
				return err
			}
			w.change(func() { l.apply(list, s.events == 0, fl.rebuilt) })
			fl.commit(list.GetIndex())
			return nil
		}
		return f.run(ctx)
	})
}

// listFollower makes a follower for a watch that starts over on every stream.
func listFollower[T any](c *Client, what string, req *registrypb.WatchRequest, w *Watch[T]) *follower {
	return &follower{
		c: c, what: what, every: c.cfg.progress, progress: func(asOf time.Time) { w.fresh.confirm(asOf) }, trouble: w.trouble,
		request: func() *registrypb.WatchRequest { return &registrypb.WatchRequest{Target: req.Target} },
	}
}

// groupList is the newest list of groups and what of it was not yet shown.
type groupList struct {
	groups map[string]Group
	index  uint64

	started, told  bool
	reset, rebuilt bool
	news           map[string]bool
}

// apply takes a list over; complete, it has all groups there are.
func (l *groupList) apply(list *registrypb.GroupList, complete, rebuilt bool) {
	l.started, l.index = true, list.GetIndex()
	l.rebuilt = l.rebuilt || rebuilt
	l.reset = l.reset || rebuilt
	gone := map[string]bool{}
	if complete {
		for name := range l.groups {
			gone[name] = true
		}
	}
	for _, name := range list.GetRemoved() {
		gone[name] = true
	}
	for _, g := range list.GetGroups() {
		delete(gone, g.GetName())
		if now := groupFromProto(g); l.groups[now.Name] != now {
			l.groups[now.Name] = now
			l.news[now.Name] = true
		}
	}
	for name := range gone {
		delete(l.groups, name)
		l.news[name] = true
	}
	if len(l.news) > 2*len(l.groups)+changesKept {
		l.reset = true
	}
	if l.reset {
		clear(l.news)
	}
}

func (l *groupList) event() (GroupsEvent, bool) {
	if !l.started || l.told && !l.reset && len(l.news) == 0 {
		return GroupsEvent{}, false
	}
	e := GroupsEvent{Reset: l.reset || !l.told, Rebuilt: l.rebuilt, Index: l.index}
	for _, name := range slices.Sorted(maps.Keys(l.groups)) {
		if e.Reset || l.news[name] {
			e.Groups = append(e.Groups, l.groups[name])
		}
		delete(l.news, name)
	}
	if !e.Reset {
		e.Removed = slices.Sorted(maps.Keys(l.news))
	}
	clear(l.news)
	l.told, l.reset, l.rebuilt = true, false, false
	return e, true
}

// WatchNodes follows the cluster's nodes and its leader. The watch ends with ctx.
func (c *Client) WatchNodes(ctx context.Context) (*Watch[NodesEvent], error) {
	return c.watchNodes(ctx, c.cfg.progress)
}

// watchNodes asks for a word at least that often.
func (c *Client) watchNodes(ctx context.Context, every time.Duration) (*Watch[NodesEvent], error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	var last NodesEvent
	var news, rebuilt bool
	poll := func() (NodesEvent, bool) {
		if !news {
			return NodesEvent{}, false
		}
		e := last
		e.Rebuilt = rebuilt
		e.Nodes = slices.Clone(last.Nodes)
		news, rebuilt = false, false
		return e, true
	}
	outage := func(err error) NodesEvent {
		e := last
		e.Nodes, e.Err, e.Recovered = slices.Clone(last.Nodes), err, err == nil
		return e
	}
	return newWatch(ctx, c, poll, outage, func(ctx context.Context, w *Watch[NodesEvent]) error {
		fl := &floor{c: c}
		f := listFollower(c, "nodes", &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Nodes{Nodes: true}}, w)
		f.every = every
		f.take = func(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
			list := e.GetNodes()
			if list == nil {
				return nil
			}
			if err := fl.check(ctx, list.GetIndex()); err != nil {
				return err
			}
			w.change(func() {
				now := nodesFromProto(list)
				same := now.Leader == last.Leader && slices.Equal(now.Nodes, last.Nodes) && last.Index != 0
				last, news, rebuilt = now, news || !same || fl.rebuilt, rebuilt || fl.rebuilt
			})
			fl.commit(list.GetIndex())
			return nil
		}
		return f.run(ctx)
	})
}

func nodesFromProto(l *registrypb.NodeList) NodesEvent {
	e := NodesEvent{Index: l.GetIndex(), Leader: l.GetLeader()}
	for _, n := range l.GetNodes() {
		e.Nodes = append(e.Nodes, Node{ID: n.GetId(), Bind: n.GetBind(), Addr: n.GetAddr(), Version: n.GetVersion()})
	}
	return e
}

// WatchPrefix follows all groups whose names start with prefix, those that come
// to exist included; without a prefix, all groups. Each event is of one group,
// and the order is kept within a group. The watch ends with ctx.
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
	c        *Client
	prefix   string
	trackers map[string]*tracker
	cells    map[string]*groupCell
	queue    []*groupCell // with news, each once
	cluster  string       // of the newest snapshot
	gone     uint64       // index of the newest deletion in that cluster
}

// What a new stream is told of what is known already: a request has a limit.
const (
	maxKnownGroups = 10_000
	maxKnownBytes  = 512 << 10
)

// request goes on from what is known of the groups, as far as there is room:
// the others start with a snapshot, and so do those of a cluster that is no more.
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
	f.take = func(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
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
		return nil // it was never shown, or that it is gone was: see vanished
	}
	if t == nil {
		if err := p.returned(ctx, name, e.GetSnapshot()); err != nil {
			return err
		}
		t = &tracker{c: p.c, group: name}
		p.trackers[name] = t
	}
	st, err := t.take(ctx, e)
	t.report(s, err)
	if errors.Is(err, errGap) { // a new stream begins with the group as a whole
		t.resync = true
	}
	if err != nil || st == nil {
		return err
	}
	if st.reset && st.cluster != "" {
		if p.cluster != st.cluster {
			p.gone = 0
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
		if !cell.news {
			p.queue = append(p.queue, cell)
		}
		cell.apply(st)
	})
	t.commit(st)
	if st.unknown {
		delete(p.trackers, t.group)
	}
	if st.deleted {
		p.gone = max(p.gone, st.index)
	}
}

// returned refuses a group that was not known, of a node that may be behind the
// newest deletion, if the leader does not know it: it is one that was deleted.
func (p *prefixWatch) returned(ctx context.Context, name string, s *registrypb.GroupSnapshot) error {
	if s.GetIndex() >= p.gone || s.GetClusterId() != p.cluster {
		return nil
	}
	_, _, err := p.c.Group(ctx, name, Linearizable())
	if errors.Is(err, ErrUnknownGroup) {
		return errBehind
	}
	if err != nil {
		return fmt.Errorf("%w, and the leader cannot be asked: %w", errBehind, err)
	}
	return nil
}

// vanished shows the groups that no longer exist: a new stream tells only of those
// that do. Each is dated by the page of the leader's list that it would be on, since
// at the index of an earlier page it may still have existed.
func (p *prefixWatch) vanished(ctx context.Context, w *Watch[GroupEvent]) error {
	known := slices.Sorted(maps.Keys(p.trackers))
	missing := map[string]*registrypb.Receipt{}
	err := p.c.groupsPages(ctx, readOptions{linearizable: true}, func(page *registrypb.GroupsResponse) {
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
		return fmt.Errorf("%w, and the leader cannot be asked: %w", errBehind, err)
	}
	for name, r := range missing {
		t := p.trackers[name]
		deleted := t.deletedAt(r.GetIndex(), r.GetClusterId())
		p.apply(t, &step{unknown: true, deleted: deleted, rebuilt: !deleted, index: r.GetIndex(), cluster: r.GetClusterId()}, w)
	}
	return nil
}
