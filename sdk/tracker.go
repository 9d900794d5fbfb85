package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// step is one event of a group that leads on from the state before it. Its
// fingerprint has been compared with its members.
type step struct {
	reset   bool // put is the whole group
	rebuilt bool // the revision may be lower than before
	unknown bool // the group does not exist
	deleted bool // unknown, and it did exist: it was deleted

	revision, index, fingerprint uint64
	cluster                      string
	params                       ring.Params
	put                          []Member // ordered by id
	removed                      []string // some may be in put again
	added                        []bool   // which of put were not members before
	gone                         []string // those of removed that were
}

// tracker decides which events of a group are to be believed. It is for one
// goroutine.
//
// What a client has seen is never taken back by a node that is behind: an event
// of an older revision, of the same revision with another fingerprint, of another
// cluster, or that the group does not exist, has to be confirmed by the leader.
// Either the leader knows the newer state, and the node is behind; or it does
// not, and the cluster was rebuilt from nothing or from an older snapshot.
//
// Example: at revision 50 the stream breaks. The next node sends a snapshot of
// revision 48. The leader says 51: the stream is given up. Had it said 30, the
// floor would go down to 30, and the snapshot of 48 would be taken over, as one
// of a rebuilt cluster. Had it named another cluster, the floor would be what it
// said of the group, whatever the revision.
//
// That the group does not exist is believed of a node of the same cluster whose
// applied index is not below the floor: the group was deleted. The floor is that
// index from then on, which a group that is made again is above.
type tracker struct {
	c     *Client
	group string

	floor   floorMark // below which nothing is believed
	rebuilt bool      // the floor went down since the last step

	// revision, fingerprint and cluster of the state, and what its fingerprint is
	// computed from; revision 0 without a state.
	revision, fingerprint uint64
	cluster               string
	inputs                *inputs
	unknown, deleted      bool // the state is that the group does not exist; and that it did
	resync                bool // the next event must be a snapshot
}

// floorMark is a state of a group that was seen, or that the leader spoke of;
// without a revision everything is believed.
type floorMark struct {
	revision, fingerprint uint64
	cluster               string
}

// sameCluster compares two cluster ids; an empty one is not known.
func sameCluster(a, b string) bool { return a == b || a == "" || b == "" }

// request resumes from the state, if there is one to lead on from.
func (t *tracker) request() *registrypb.WatchRequest {
	r := &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: t.group}}
	if !t.resync && !t.rebuilt && t.revision != 0 {
		r.Revision, r.Fingerprint, r.ClusterId = t.revision, t.fingerprint, t.cluster
	}
	return r
}

// started tells whether there is a state.
func (t *tracker) started() bool { return t.revision != 0 || t.unknown }

// dated tells whether there is a state that has a place in the log.
func (t *tracker) dated() bool { return t.revision != 0 || t.deleted }

// take returns the step that an event makes, or nil if it is nothing new. An
// errMismatch among the errors was not logged yet.
func (t *tracker) take(ctx context.Context, e *registrypb.WatchEvent) (*step, error) {
	absence := e.GetAbsence()
	switch e := e.Event.(type) {
	case *registrypb.WatchEvent_UnknownGroup:
		return t.takeUnknown(ctx, absence)
	case *registrypb.WatchEvent_Snapshot:
		return t.takeSnapshot(ctx, e.Snapshot)
	case *registrypb.WatchEvent_Delta:
		return t.takeDelta(e.Delta)
	}
	return nil, nil // of a newer server
}

func (t *tracker) takeUnknown(ctx context.Context, a *registrypb.GroupAbsence) (*step, error) {
	if t.unknown && !t.rebuilt {
		return nil, nil
	}
	if t.deletedAt(a.GetIndex(), a.GetClusterId()) {
		return &step{unknown: true, deleted: true, rebuilt: t.rebuilt, index: a.GetIndex(), cluster: a.GetClusterId()}, nil
	}
	if err := t.ask(ctx); err != nil {
		return nil, err
	}
	if t.floor.revision != 0 {
		return nil, errBehind
	}
	return &step{unknown: true, rebuilt: t.rebuilt, index: a.GetIndex(), cluster: a.GetClusterId()}, nil
}

// deletedAt tells whether a group that does not exist at the index was deleted.
func (t *tracker) deletedAt(index uint64, cluster string) bool {
	return t.floor.revision != 0 && index >= t.floor.revision && cluster != "" && cluster == t.floor.cluster
}

func (t *tracker) takeSnapshot(ctx context.Context, s *registrypb.GroupSnapshot) (*step, error) {
	if s.GetRevision() == 0 {
		return nil, errGap
	}
	if err := t.c.identity.meet(registrypb.ClusterRef{ID: s.GetClusterId()}, true); err != nil {
		return nil, err
	}
	if !t.believable(s) {
		if err := t.ask(ctx); err != nil {
			return nil, err
		}
		if !t.believable(s) {
			return nil, errBehind
		}
	}
	st := &step{
		reset: true, rebuilt: t.rebuilt, revision: s.GetRevision(), index: s.GetIndex(), fingerprint: s.GetFingerprint(),
		cluster: s.GetClusterId(), params: paramsFromProto(s.GetConfig()), put: sortedMembers(s.GetMembers()),
	}
	in, err := inputsOf(st.params, st.put)
	if err == nil {
		err = in.check(st.revision, st.fingerprint)
	}
	if err != nil {
		return nil, t.discard(err)
	}
	t.inputs = in
	if st.revision == t.revision && st.fingerprint == t.fingerprint && sameCluster(st.cluster, t.cluster) && !t.rebuilt {
		t.resync = false
		return nil, nil
	}
	return st, nil
}

func (t *tracker) believable(s *registrypb.GroupSnapshot) bool {
	f := t.floor
	return sameCluster(s.GetClusterId(), f.cluster) &&
		(s.GetRevision() > f.revision || s.GetRevision() == f.revision && s.GetFingerprint() == f.fingerprint)
}

func (t *tracker) takeDelta(d *registrypb.GroupDelta) (*step, error) {
	if t.resync || t.rebuilt || t.revision == 0 || d.GetFrom() != t.revision || d.GetRevision() <= t.revision {
		return nil, errGap
	}
	st := &step{
		revision: d.GetRevision(), index: d.GetIndex(), fingerprint: d.GetFingerprint(), cluster: t.cluster,
		params: paramsFromProto(d.GetConfig()), put: sortedMembers(d.GetPut()), removed: d.GetRemoved(),
	}
	err := t.inputs.fold(st)
	if err == nil {
		err = t.inputs.check(st.revision, st.fingerprint)
	}
	if err != nil {
		return nil, t.discard(err)
	}
	return st, nil
}

// discard throws a state away that does not fit its fingerprint: the next one
// has to be a snapshot.
func (t *tracker) discard(err error) error {
	t.resync = true
	return fmt.Errorf("%w: %w", errGap, err)
}

// report logs a mismatch, and tells whether the error is one.
func (t *tracker) report(s *session, err error) bool {
	if !errors.Is(err, errMismatch) {
		return false
	}
	t.c.cfg.logger.Error("a state of the group was thrown away and is fetched again",
		"group", t.group, "addr", s.ep.addr, "error", err)
	return true
}

// ask lets the leader say where the group is, and lowers the floor if that is
// below it, or of another cluster. It returns errBehind if the leader is where
// this client was, or further.
func (t *tracker) ask(ctx context.Context) error {
	r, err := t.c.groupReceipt(ctx, t.group)
	switch {
	case errors.Is(err, ErrUnknownGroup) && t.unknown && !t.rebuilt:
		return errBehind // as was told; what the node shows is older
	case errors.Is(err, ErrUnknownGroup):
		r = Receipt{}
	case err != nil:
		return fmt.Errorf("%w, and the leader cannot be asked: %w", errBehind, err)
	}
	f := t.floor
	if sameCluster(r.ClusterID, f.cluster) &&
		(r.Revision > f.revision || r.Revision == f.revision && r.Fingerprint == f.fingerprint && f.revision != 0) {
		return errBehind
	}
	if f.revision == 0 {
		return nil
	}
	t.c.cfg.logger.Warn("the cluster was rebuilt: a group went back",
		"group", t.group, "seen", f.revision, "of", f.cluster, "revision", r.Revision, "cluster", r.ClusterID)
	t.floor, t.rebuilt = floorMark{r.Revision, r.Fingerprint, r.ClusterID}, true
	return nil
}

// commit makes a step's state the one to lead on from.
func (t *tracker) commit(s *step) {
	t.revision, t.fingerprint, t.cluster = s.revision, s.fingerprint, s.cluster
	t.unknown, t.deleted = s.unknown, s.deleted
	t.floor = floorMark{s.revision, s.fingerprint, s.cluster}
	t.rebuilt, t.resync = false, false
	if s.unknown {
		t.inputs, t.floor.revision = nil, s.index
	}
	t.c.observe(s.index)
}

func paramsFromProto(c *registrypb.GroupConfig) ring.Params {
	return ring.Params{VirtualNodes: int(c.GetVirtualNodes()), Bound: int(c.GetBound())}
}

func sortedMembers(ms []*registrypb.Member) []Member {
	out := membersFromProto(ms)
	if !slices.IsSortedFunc(out, byID) {
		slices.SortFunc(out, byID)
	}
	return out
}

func byID(a, b Member) int { return strings.Compare(a.ID, b.ID) }

// merge returns the members after a change. All lists are ordered by id; one
// that is both removed and put is put.
func merge(old, put []Member, removed []string) []Member {
	out := make([]Member, 0, len(old)+len(put))
	for len(put)+len(removed) > 0 {
		id := ""
		if len(removed) == 0 || len(put) > 0 && put[0].ID < removed[0] {
			id = put[0].ID
		} else {
			id = removed[0]
		}
		i, found := slices.BinarySearchFunc(old, id, func(m Member, id string) int { return strings.Compare(m.ID, id) })
		out = append(out, old[:i]...)
		if old = old[i:]; found {
			old = old[1:]
		}
		if len(removed) > 0 && removed[0] == id {
			removed = removed[1:]
		}
		if len(put) > 0 && put[0].ID == id {
			out, put = append(out, put[0]), put[1:]
		}
	}
	return append(out, old...)
}

// after returns the members after the step.
func (s *step) after(old []Member) []Member {
	switch {
	case s.unknown:
		return nil
	case s.reset:
		return s.put
	}
	return merge(old, s.put, slices.Sorted(slices.Values(s.removed)))
}

// ringMembers is what the ring needs of members.
func ringMembers(ms []Member) []ring.Member {
	out := make([]ring.Member, len(ms))
	for i := range ms {
		out[i] = ringMember(&ms[i])
	}
	return out
}

func ringMember(m *Member) ring.Member {
	return ring.Member{ID: m.ID, Weight: m.Weight, State: ringState(m.State)}
}

func ringState(s State) ring.State {
	switch s {
	case StateDraining:
		return ring.Draining
	case StateHeld:
		return ring.Held
	default:
		return ring.Active
	}
}
