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

// step is an accepted event of a group, relative to the state before it. Its members
// have its fingerprint.
type step struct {
	reset   bool // put is the whole group
	rebuilt bool // the revision may be lower than before
	unknown bool // the group does not exist
	deleted bool // unknown, and it existed before

	revision, index, fingerprint uint64
	cluster                      string
	params                       ring.Params
	put                          []Member // ordered by id
	removed                      []string // some may be in put again
	added                        []bool   // which of put were not members before
	left                         []string // those of removed that were members
}

// tracker decides which events of a group are accepted. It is for one goroutine.
//
// A node that is behind must not undo what the client has seen: an event of an older
// revision, of the same revision with another fingerprint, of another cluster, or
// that the group does not exist, needs the leader's confirmation. If the leader has
// the newer state, the node is behind; if not, the cluster lost its log or was
// restored from an older snapshot.
//
// Example: at revision 50 the stream breaks. The next node sends a snapshot of
// revision 48. If the leader has 51, the stream is closed. If it has 30, the minimum
// revision becomes 30, and the snapshot of 48 is accepted as one of a rebuilt
// cluster. If it names another cluster, the minimum is its state of the group,
// whatever the revision.
//
// That the group does not exist is accepted from a node of the same cluster whose
// applied index is not below the minimum revision: the group was deleted. That index
// becomes the minimum; a group that is created again has a higher revision.
type tracker struct {
	c     *Client
	group string

	minimum groupVersion // the least that is accepted
	rebuilt bool         // the minimum went down since the last step

	// revision, fingerprint and cluster of the state, and the inputs of the
	// fingerprint; revision 0 without a state.
	revision, fingerprint uint64
	cluster               string
	inputs                *inputs
	unknown, deleted      bool // the group does not exist; and existed before
	resync                bool // the next event must be a snapshot
}

// groupVersion is a state of a group that was seen or that the leader has; without a
// revision everything is accepted.
type groupVersion struct {
	revision, fingerprint uint64
	cluster               string
}

// sameCluster compares two cluster ids; an empty one is unknown and matches.
func sameCluster(a, b string) bool { return a == b || a == "" || b == "" }

// request resumes from the state, if there is one to resume from.
func (t *tracker) request() *registrypb.WatchRequest {
	r := &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: t.group}}
	if !t.resync && !t.rebuilt && t.revision != 0 {
		r.Revision, r.Fingerprint, r.ClusterId = t.revision, t.fingerprint, t.cluster
	}
	return r
}

// hasState reports whether there is a state.
func (t *tracker) hasState() bool { return t.revision != 0 || t.unknown }

// hasIndex reports whether there is a state with an index of the log.
func (t *tracker) hasIndex() bool { return t.revision != 0 || t.deleted }

// stepOf returns the step of an event, or nil if nothing changed. The caller logs
// errMismatch.
func (t *tracker) stepOf(ctx context.Context, e *registrypb.WatchEvent) (*step, error) {
	absence := e.GetAbsence()
	switch e := e.Event.(type) {
	case *registrypb.WatchEvent_UnknownGroup:
		return t.unknownStep(ctx, absence)
	case *registrypb.WatchEvent_Snapshot:
		return t.snapshotStep(ctx, e.Snapshot)
	case *registrypb.WatchEvent_Delta:
		return t.deltaStep(e.Delta)
	}
	return nil, nil // of a newer server
}

func (t *tracker) unknownStep(ctx context.Context, a *registrypb.GroupAbsence) (*step, error) {
	if t.unknown && !t.rebuilt {
		return nil, nil
	}
	if t.deletedAt(a.GetIndex(), a.GetClusterId()) {
		return &step{unknown: true, deleted: true, rebuilt: t.rebuilt, index: a.GetIndex(), cluster: a.GetClusterId()}, nil
	}
	if err := t.askLeader(ctx); err != nil {
		return nil, err
	}
	if t.minimum.revision != 0 {
		return nil, errBehind
	}
	return &step{unknown: true, rebuilt: t.rebuilt, index: a.GetIndex(), cluster: a.GetClusterId()}, nil
}

// deletedAt reports whether a group that does not exist at the index was deleted.
func (t *tracker) deletedAt(index uint64, cluster string) bool {
	return t.minimum.revision != 0 && index >= t.minimum.revision && cluster != "" && cluster == t.minimum.cluster
}

func (t *tracker) snapshotStep(ctx context.Context, s *registrypb.GroupSnapshot) (*step, error) {
	if s.GetRevision() == 0 {
		return nil, errGap
	}
	if err := t.c.identity.check(registrypb.ClusterRef{ID: s.GetClusterId()}, true); err != nil {
		return nil, err
	}
	if !t.acceptable(s) {
		if err := t.askLeader(ctx); err != nil {
			return nil, err
		}
		if !t.acceptable(s) {
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

func (t *tracker) acceptable(s *registrypb.GroupSnapshot) bool {
	m := t.minimum
	return sameCluster(s.GetClusterId(), m.cluster) &&
		(s.GetRevision() > m.revision || s.GetRevision() == m.revision && s.GetFingerprint() == m.fingerprint)
}

func (t *tracker) deltaStep(d *registrypb.GroupDelta) (*step, error) {
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

// discard drops a state that does not have its fingerprint: the next event must be a
// snapshot.
func (t *tracker) discard(err error) error {
	t.resync = true
	return fmt.Errorf("%w: %w", errGap, err)
}

// report logs a mismatch, and reports whether the error is one.
func (t *tracker) report(s *session, err error) bool {
	if !errors.Is(err, errMismatch) {
		return false
	}
	t.c.cfg.logger.Error("a state of the group does not have its fingerprint and is fetched again",
		"group", t.group, "addr", s.ep.addr, "error", err)
	return true
}

// askLeader asks the leader for the group's revision, and lowers the minimum if the
// leader's is below it or of another cluster. It returns errBehind if the leader is
// not behind this client.
func (t *tracker) askLeader(ctx context.Context) error {
	r, err := t.c.groupReceipt(ctx, t.group)
	switch {
	case errors.Is(err, ErrUnknownGroup) && t.unknown && !t.rebuilt:
		return errBehind // the leader agrees with the state; the node is behind
	case errors.Is(err, ErrUnknownGroup):
		r = Receipt{}
	case err != nil:
		return fmt.Errorf("%w, and the leader did not answer: %w", errBehind, err)
	}
	m := t.minimum
	if sameCluster(r.ClusterID, m.cluster) &&
		(r.Revision > m.revision || r.Revision == m.revision && r.Fingerprint == m.fingerprint && m.revision != 0) {
		return errBehind
	}
	if m.revision == 0 {
		return nil
	}
	t.c.cfg.logger.Warn("the cluster lost a part of its log: a group went back",
		"group", t.group, "seen", m.revision, "of", m.cluster, "revision", r.Revision, "cluster", r.ClusterID)
	t.minimum, t.rebuilt = groupVersion{r.Revision, r.Fingerprint, r.ClusterID}, true
	return nil
}

// commit makes the step's state the current one.
func (t *tracker) commit(s *step) {
	t.revision, t.fingerprint, t.cluster = s.revision, s.fingerprint, s.cluster
	t.unknown, t.deleted = s.unknown, s.deleted
	t.minimum = groupVersion{s.revision, s.fingerprint, s.cluster}
	t.rebuilt, t.resync = false, false
	if s.unknown {
		t.inputs, t.minimum.revision = nil, s.index
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

// merge returns the members after a change. All lists are ordered by id; put wins
// over removed.
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

// ringMembers converts members for the ring.
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
