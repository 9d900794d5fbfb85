package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
)

const watchRetry = 50 * time.Millisecond

// groupWatch follows one group at one node and resumes where it was.
type groupWatch struct {
	mu sync.Mutex // guards w
	w  *check.Watcher
}

// prefixWatch follows all groups of the load at one node. Every other stream
// resumes where the watch was, the rest start anew.
type prefixWatch struct {
	mu      sync.Mutex // guards the rest
	groups  map[string]*check.Watcher
	opened  bool // no event of the newest stream yet
	streams int  // that had events
}

func (l *Load) startWatches(ctx context.Context) {
	for _, n := range l.nodes {
		n.group = &groupWatch{w: &check.Watcher{Name: "the watch of a group at " + n.Node, Views: l.views}}
		n.prefix = &prefixWatch{groups: make(map[string]*check.Watcher)}
		for _, group := range l.Groups() {
			n.prefix.groups[group] = &check.Watcher{Name: "the watch of all groups at " + n.Node, Views: l.views, Gone: l.gone(n)}
		}
		l.watch.Go(func() { l.follow(ctx, n, n.group.request(l.linearGroup(0)), n.group.take) })
		l.watch.Go(func() { l.follow(ctx, n, n.prefix.request(l.cfg.Prefix), n.prefix.take) })
	}
}

// gone notes members that a watch saw go.
func (l *Load) gone(n *node) func(group, id string) {
	return func(group, id string) {
		r := check.Removal{Node: n.Node, Group: group, ID: id, At: l.Now()}
		l.note(func(h *History) { h.Removals = append(h.Removals, r) })
	}
}

// follow opens stream after stream until the context ends.
func (l *Load) follow(ctx context.Context, n *node, request func() *registrypb.WatchRequest, take func(*registrypb.WatchEvent)) {
	for ctx.Err() == nil {
		stream, err := n.registry.Watch(ctx, request())
		for err == nil {
			var e *registrypb.WatchEvent
			if e, err = stream.Recv(); err == nil {
				take(e)
			}
		}
		pause(ctx, watchRetry)
	}
}

func (g *groupWatch) request(group string) func() *registrypb.WatchRequest {
	return func() *registrypb.WatchRequest {
		g.mu.Lock()
		defer g.mu.Unlock()
		revision, fingerprint := g.w.Position()
		return &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: group}, Revision: revision, Fingerprint: fingerprint, ProgressInterval: durationpb.New(time.Second)}
	}
}

func (p *prefixWatch) request(prefix string) func() *registrypb.WatchRequest {
	return func() *registrypb.WatchRequest {
		p.mu.Lock()
		defer p.mu.Unlock()
		r := &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Prefix{Prefix: prefix}, ProgressInterval: durationpb.New(time.Second)}
		if p.opened = true; p.streams%2 == 0 {
			return r
		}
		for group, w := range p.groups {
			if revision, fingerprint := w.Position(); revision != 0 {
				r.Known = append(r.Known, &registrypb.KnownGroup{Group: group, Revision: revision, Fingerprint: fingerprint})
			}
		}
		return r
	}
}

func (g *groupWatch) take(e *registrypb.WatchEvent) {
	g.mu.Lock()
	defer g.mu.Unlock()
	take(func(string) *check.Watcher { return g.w }, e)
}

func (p *prefixWatch) take(e *registrypb.WatchEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened {
		p.opened, p.streams = false, p.streams+1
	}
	take(func(group string) *check.Watcher { return p.groups[group] }, e)
}

func take(of func(group string) *check.Watcher, e *registrypb.WatchEvent) {
	switch e := e.Event.(type) {
	case *registrypb.WatchEvent_Snapshot:
		if w := of(e.Snapshot.Group); w != nil {
			w.Snapshot(e.Snapshot.Group, e.Snapshot.Revision, e.Snapshot.Fingerprint, membersOf(e.Snapshot.Members))
		}
	case *registrypb.WatchEvent_Delta:
		if w, d := of(e.Delta.Group), e.Delta; w != nil {
			w.Delta(d.Group, d.From, d.Revision, d.Fingerprint, membersOf(d.Put), d.Removed)
		}
	case *registrypb.WatchEvent_UnknownGroup:
		if w := of(e.UnknownGroup); w != nil {
			w.Unknown(e.UnknownGroup)
		}
	}
}

// watchers are those of a group.
func (n *node) watchers(group, watched string) []*check.Watcher {
	w := []*check.Watcher{n.prefix.groups[group]}
	if group == watched {
		w = append(w, n.group.w)
	}
	return w
}

func (n *node) watchViolations() (found []check.Violation) {
	if n.group == nil {
		return nil
	}
	n.group.mu.Lock()
	defer n.group.mu.Unlock()
	n.prefix.mu.Lock()
	defer n.prefix.mu.Unlock()
	found = append(found, n.group.w.Violations()...)
	for _, w := range n.prefix.groups {
		found = append(found, w.Violations()...)
	}
	return found
}

// behind says which watch has not reached the group's revision at this node.
func (l *Load) behind(n *node, group string, revision uint64) error {
	n.group.mu.Lock()
	defer n.group.mu.Unlock()
	n.prefix.mu.Lock()
	defer n.prefix.mu.Unlock()
	for _, w := range n.watchers(group, l.linearGroup(0)) {
		if at, _ := w.Position(); at != revision {
			return fmt.Errorf("%s: %s is at revision %d, the group at %d", w.Name, group, at, revision)
		}
	}
	return nil
}

func (l *Load) finalWatch(n *node, group string, revision uint64, members []check.Member) {
	n.group.mu.Lock()
	defer n.group.mu.Unlock()
	n.prefix.mu.Lock()
	defer n.prefix.mu.Unlock()
	for _, w := range n.watchers(group, l.linearGroup(0)) {
		w.Final(revision, members)
	}
}
