package sdk

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// fakeVersion is a group at one revision.
type fakeVersion struct {
	revision, fingerprint uint64
	members               []*registrypb.Member // ordered by id
}

var fakeParams = ring.Params{VirtualNodes: 64, Bound: 1250}

// fakeHistory is a group that tests write the history of.
type fakeHistory struct {
	versions []fakeVersion
	forgot   int // versions that nobody resumes from
	gone     int // versions before the group was deleted, at the index
	deleted  uint64
}

// delete deletes a group. Nodes that are pinned go on as they were.
func (cl *fakeCluster) delete(group string) uint64 {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.index += 3
	h := cl.histories[group]
	h.gone, h.deleted = len(h.versions), cl.index
	cl.changedLocked()
	return cl.index
}

// unknownLocked says that a group does not exist.
func (cl *fakeCluster) unknownLocked(group string) *registrypb.WatchEvent {
	e := &registrypb.WatchEvent{Event: &registrypb.WatchEvent_UnknownGroup{UnknownGroup: group}}
	if h := cl.histories[group]; h != nil && h.deleted != 0 {
		e.Absence = &registrypb.GroupAbsence{Index: h.deleted, ClusterId: cl.id}
	}
	return e
}

// write makes the group's next version: members are ids, or "id weight" pairs
// where a weight other than 1 is wanted.
func (cl *fakeCluster) write(group string, members ...*registrypb.Member) uint64 {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.index += 3
	return cl.writeAtLocked(group, cl.index, members)
}

func (cl *fakeCluster) writeAtLocked(group string, revision uint64, members []*registrypb.Member) uint64 {
	h := cl.histories[group]
	if h == nil {
		h = &fakeHistory{}
		if cl.histories == nil {
			cl.histories = map[string]*fakeHistory{}
		}
		cl.histories[group] = h
	}
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b *registrypb.Member) int { return cmp.Compare(a.Id, b.Id) })
	h.versions = append(h.versions, fakeVersion{revision, fakeRing(members).Fingerprint(), members})
	cl.changedLocked()
	return revision
}

func fakeRing(members []*registrypb.Member) *ring.Ring {
	r, err := ring.New(fakeParams, ringMembers(membersFromProto(members)))
	if err != nil {
		panic(err)
	}
	return r
}

// rebuild starts the cluster over under its old id: an empty log.
func (cl *fakeCluster) rebuild(index uint64) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.histories, cl.index = nil, index
	for _, n := range cl.nodes {
		n.pinned = nil
	}
	cl.changedLocked()
}

func (cl *fakeCluster) changedLocked() {
	if cl.news != nil {
		close(cl.news)
	}
	cl.news = make(chan struct{})
}

// newest returns the group's newest version.
func (cl *fakeCluster) newest(group string) fakeVersion {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	h := cl.histories[group]
	return h.versions[len(h.versions)-1]
}

func member(id string, weight int) *registrypb.Member {
	return &registrypb.Member{Id: id, Addr: id + ":80", Weight: uint32(weight)}
}

func memberIDs(n int) []*registrypb.Member {
	var ms []*registrypb.Member
	for i := range n {
		ms = append(ms, member(fmt.Sprintf("m-%d", i), 1))
	}
	return ms
}

// pin keeps the node at the group's present version, as if it were cut off.
func (n *fakeNode) pin(group string) {
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	n.pinned = map[string]int{}
	if h := n.cl.histories[group]; h != nil {
		n.pinned[group] = len(h.versions)
	} else {
		n.pinned[group] = 0
	}
}

func (n *fakeNode) unpin() {
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	n.pinned = nil
	n.cl.changedLocked()
}

// breakStreams ends the streams that are open, and no others.
func (n *fakeNode) breakStreams() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken != nil {
		close(n.broken)
	}
	n.broken = make(chan struct{})
}

// visibleLocked returns the versions that the node knows.
func (n *fakeNode) visibleLocked(group string) []fakeVersion {
	h := n.cl.histories[group]
	if h == nil {
		return nil
	}
	if at, ok := n.pinned[group]; ok {
		return h.versions[:min(at, len(h.versions))]
	}
	return h.versions[h.gone:]
}

func (n *fakeNode) Watch(req *registrypb.WatchRequest, srv registrypb.Registry_WatchServer) error {
	n.mu.Lock()
	if n.broken == nil {
		n.broken = make(chan struct{})
	}
	broken := n.broken // before the script: a stream that a former script lets through is broken, too
	n.mu.Unlock()
	if err := n.enter(srv.Context(), "Watch", req); err != nil {
		return err
	}
	w := &fakeWatch{node: n, req: req, revision: req.Revision, fingerprint: req.Fingerprint, sent: map[string]uint64{}}
	tick := time.NewTicker(req.ProgressInterval.AsDuration())
	defer tick.Stop()
	for first := true; ; {
		events, news := w.poll()
		for _, e := range events {
			n.mu.Lock()
			alter := n.alter
			n.mu.Unlock()
			if alter != nil {
				e = alter(proto.Clone(e).(*registrypb.WatchEvent))
			}
			for _, e := range n.cl.pieces(e) {
				if err := srv.Send(e); err != nil {
					return err
				}
			}
		}
		if first {
			if err := n.sendProgress(srv); err != nil {
				return err
			}
			first = false
		}
		select {
		case <-news:
		case <-broken:
			return because(registrypb.ErrorDetail_NOT_READY)
		case <-srv.Context().Done():
			return srv.Context().Err()
		case <-tick.C:
			if err := n.sendProgress(srv); err != nil {
				return err
			}
		}
	}
}

// sendProgress says that what was sent is the newest state.
func (n *fakeNode) sendProgress(srv registrypb.Registry_WatchServer) error {
	n.mu.Lock()
	lag, mute := n.lag, n.mute
	n.mu.Unlock()
	if mute {
		return nil
	}
	return srv.Send(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{Lag: durationpb.New(lag)}}})
}

type fakeWatch struct {
	node                  *fakeNode
	req                   *registrypb.WatchRequest
	revision, fingerprint uint64
	unknown, started      bool
	sent                  map[string]uint64 // revisions, for prefixes and lists
}

// poll returns what to send, and a channel that is closed at the next change.
func (w *fakeWatch) poll() ([]*registrypb.WatchEvent, <-chan struct{}) {
	cl := w.node.cl
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.news == nil {
		cl.news = make(chan struct{})
	}
	switch t := w.req.Target.(type) {
	case *registrypb.WatchRequest_Group:
		return w.group(t.Group), cl.news
	case *registrypb.WatchRequest_Prefix, *registrypb.WatchRequest_Groups:
		return w.list(w.req.GetPrefix()), cl.news
	}
	l := &registrypb.NodeList{Index: cl.index, Leader: cl.nodes[0].id}
	for _, n := range cl.nodes {
		l.Nodes = append(l.Nodes, &registrypb.Node{Id: n.id, Addr: n.addr})
	}
	return []*registrypb.WatchEvent{{Event: &registrypb.WatchEvent_Nodes{Nodes: l}}}, cl.news
}

func (w *fakeWatch) group(name string) []*registrypb.WatchEvent {
	vs := w.node.visibleLocked(name)
	if len(vs) == 0 {
		if w.unknown {
			return nil
		}
		w.unknown, w.revision = true, 0
		return []*registrypb.WatchEvent{w.node.cl.unknownLocked(name)}
	}
	w.unknown = false
	from := slices.IndexFunc(vs, func(v fakeVersion) bool { return v.revision == w.revision })
	if from >= 0 && (from < w.node.cl.histories[name].forgot || vs[from].fingerprint != w.fingerprint ||
		!sameCluster(w.req.ClusterId, w.node.cl.id)) {
		from = -1
	}
	last := vs[len(vs)-1]
	w.revision, w.fingerprint = last.revision, last.fingerprint
	if from < 0 {
		return []*registrypb.WatchEvent{{Event: &registrypb.WatchEvent_Snapshot{Snapshot: w.node.cl.snapshotOf(name, last)}}}
	}
	var out []*registrypb.WatchEvent
	for i := from + 1; i < len(vs); i++ {
		d := deltaOf(name, vs[i-1], vs[i])
		out = append(out, &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Delta{Delta: d}})
	}
	return out
}

func fakeConfig() *registrypb.GroupConfig {
	return &registrypb.GroupConfig{VirtualNodes: uint32(fakeParams.VirtualNodes), Bound: uint32(fakeParams.Bound)}
}

func (cl *fakeCluster) snapshotOf(group string, v fakeVersion) *registrypb.GroupSnapshot {
	return &registrypb.GroupSnapshot{Group: group, Revision: v.revision, Index: v.revision, Fingerprint: v.fingerprint, Config: fakeConfig(), Members: v.members, ClusterId: cl.id}
}

func deltaOf(group string, from, to fakeVersion) *registrypb.GroupDelta {
	d := &registrypb.GroupDelta{Group: group, From: from.revision, Revision: to.revision, Index: to.revision, Fingerprint: to.fingerprint, Config: fakeConfig()}
	old := map[string]*registrypb.Member{}
	for _, m := range from.members {
		old[m.Id] = m
	}
	for _, m := range to.members {
		if o := old[m.Id]; o == nil || !proto.Equal(o, m) {
			d.Put = append(d.Put, m)
		}
		delete(old, m.Id)
	}
	for id := range old {
		d.Removed = append(d.Removed, id)
	}
	return d
}

// list sends groups by prefix as snapshots, or the list of groups. Of groups
// that the watcher knows it says first which do not exist.
func (w *fakeWatch) list(prefix string) []*registrypb.WatchEvent {
	var out []*registrypb.WatchEvent
	for _, k := range w.req.Known {
		if !w.started && len(w.node.visibleLocked(k.Group)) == 0 {
			out = append(out, w.node.cl.unknownLocked(k.Group))
		}
	}
	for name, revision := range w.sent {
		if revision != 0 && len(w.node.visibleLocked(name)) == 0 {
			w.sent[name] = 0
			out = append(out, w.node.cl.unknownLocked(name))
		}
	}
	list := &registrypb.GroupList{Index: w.node.cl.index}
	for name := range w.node.cl.histories {
		vs := w.node.visibleLocked(name)
		if len(vs) == 0 || len(name) < len(prefix) || name[:len(prefix)] != prefix {
			continue
		}
		v := vs[len(vs)-1]
		if w.sent[name] == v.revision {
			continue
		}
		w.sent[name] = v.revision
		list.Groups = append(list.Groups, &registrypb.Group{Name: name, Revision: v.revision, Members: uint32(len(v.members))})
		out = append(out, &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: w.node.cl.snapshotOf(name, v)}})
	}
	first := !w.started
	w.started = true
	if w.req.GetGroups() && (first || len(list.Groups) > 0) {
		return []*registrypb.WatchEvent{{Event: &registrypb.WatchEvent_Groups{Groups: list}}}
	}
	if w.req.GetGroups() {
		return nil
	}
	return out
}

// receiptOf answers calls about a group with a history. A linearizable read is
// answered from the newest version, whatever the node knows.
func (n *fakeNode) receiptOf(group string, read *registrypb.ReadOptions) (*registrypb.Receipt, []*registrypb.Member, error) {
	n.mu.Lock()
	lag := n.lag
	n.mu.Unlock()
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	vs := n.visibleLocked(group)
	if read.GetLinearizable() {
		vs = nil
		if h := n.cl.histories[group]; h != nil {
			vs = h.versions[h.gone:]
		}
	}
	if len(vs) == 0 {
		return nil, nil, because(registrypb.ErrorDetail_UNKNOWN_GROUP)
	}
	v := vs[len(vs)-1]
	if v.revision < read.GetMinIndex() && n.cl.index < read.GetMinIndex() {
		return nil, nil, because(registrypb.ErrorDetail_STALE)
	}
	return &registrypb.Receipt{Index: max(n.cl.index, v.revision), Revision: v.revision, Fingerprint: v.fingerprint, Node: n.id, ClusterId: n.cl.id, Lag: durationpb.New(lag)}, v.members, nil
}

func (n *fakeNode) hasHistory(group string) bool {
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	return n.cl.watched || n.cl.histories[group] != nil
}

// buildView returns the view after a step, which leads on from old unless it is a
// reset.
func buildView(group string, old *View, st *step) (*View, error) {
	var members []Member
	if old != nil {
		members = old.members
	}
	members = st.after(members)
	r, err := ring.New(st.params, ringMembers(members))
	if err != nil {
		return nil, err
	}
	s := state{revision: st.revision, index: st.index, fingerprint: st.fingerprint, cluster: st.cluster, params: st.params}
	return newView(group, s, members, r), nil
}

// newFakeWatched makes a cluster whose groups have histories, and progress
// every few milliseconds in its clients.
func newFakeWatched(t *testing.T, nodes int) *fakeCluster {
	t.Helper()
	cl := newFakeCluster(t, nodes)
	cl.watched = true
	return cl
}

func fastProgress(c *config) { c.progress = 20 * time.Millisecond }
