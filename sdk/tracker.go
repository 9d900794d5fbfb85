package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// step is one event of a group that leads on from the state before it.
type step struct {
	reset   bool // put is the whole group
	rebuilt bool // the revision may be lower than before
	unknown bool // the group does not exist

	revision, index, fingerprint uint64
	params                       ring.Params
	put                          []Member // ordered by id
	removed                      []string
}

// tracker decides which events of a group are to be believed. It is for one
// goroutine.
//
// What a client has seen is never taken back by a node that is behind: an event
// of an older revision, of the same revision with another ring, or that the
// group does not exist, has to be confirmed by the leader. Either the leader
// knows the newer state, and the node is behind; or it does not, and the
// cluster was rebuilt from nothing or from an older snapshot.
//
// Example: at revision 50 the stream breaks. The next node sends a snapshot of
// revision 48. The leader says 51: the stream is given up. Had it said 30, the
// floor would go down to 30, and the snapshot of 48 would be taken over, as one
// of a rebuilt cluster.
type tracker struct {
	c     *Client
	group string

	// floor is the revision below which nothing is believed, and the ring's
	// fingerprint at it; 0: everything is.
	floor, floorPrint uint64
	rebuilt           bool // the floor went down since the last step

	// revision and fingerprint of the state; revision 0 without one, fingerprint
	// 0 where the node told of a change at once, before it had a ring.
	revision, fingerprint uint64
	unknown               bool // the state is that the group does not exist
	resync                bool // the next event must be a snapshot

	// With atOnce such changes are asked for, and state is what they led to.
	atOnce bool
	state  func() (ring.Params, []Member)
}

// request resumes from the state, if there is one to lead on from.
func (t *tracker) request() *registrypb.WatchRequest {
	r := &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: t.group}, AtOnce: t.atOnce}
	if !t.resumes() {
		return r
	}
	if t.settle(); t.resumes() {
		r.Revision, r.Fingerprint = t.revision, t.fingerprint
	}
	return r
}

// resumes tells whether the next stream goes on from the state.
func (t *tracker) resumes() bool { return !t.resync && !t.rebuilt }

// settled tells whether the state's fingerprint is known.
func (t *tracker) settled() bool { return !t.atOnce || t.revision == 0 || t.fingerprint != 0 }

// toSettle is the number of points that a request has to make.
func (t *tracker) toSettle() int {
	if t.settled() || !t.resumes() {
		return 0
	}
	params, members := t.state()
	weight := 0
	for _, m := range members {
		weight += m.Weight
	}
	return weight * params.VirtualNodes
}

// settle computes the fingerprint of a state that no node has yet told it of.
func (t *tracker) settle() {
	if t.settled() {
		return
	}
	params, members := t.state()
	r, err := ring.New(params, ringMembers(members))
	if err != nil {
		t.resync = true // of a newer server: start over
		return
	}
	t.print(r.Fingerprint())
}

// print notes the fingerprint of the state, which is where the floor is.
func (t *tracker) print(fingerprint uint64) { t.fingerprint, t.floorPrint = fingerprint, fingerprint }

// settleBy is settle where a node sends what it has at the state's revision: of
// the same members it makes the same ring.
func (t *tracker) settleBy(s *registrypb.GroupSnapshot) {
	if t.settled() {
		return
	}
	params, members := t.state()
	if params == paramsFromProto(s.GetConfig()) && slices.Equal(ringMembers(members), ringMembers(sortedMembers(s.GetMembers()))) {
		t.print(s.GetFingerprint())
		return
	}
	t.settle()
}

// started tells whether there is a state.
func (t *tracker) started() bool { return t.revision != 0 || t.unknown }

// take returns the step that an event makes, or nil if it is nothing new.
func (t *tracker) take(ctx context.Context, e *registrypb.WatchEvent) (*step, error) {
	switch e := e.Event.(type) {
	case *registrypb.WatchEvent_UnknownGroup:
		return t.takeUnknown(ctx)
	case *registrypb.WatchEvent_Snapshot:
		return t.takeSnapshot(ctx, e.Snapshot)
	case *registrypb.WatchEvent_Delta:
		return t.takeDelta(e.Delta)
	}
	return nil, nil // of a newer server
}

func (t *tracker) takeUnknown(ctx context.Context) (*step, error) {
	if t.unknown && !t.rebuilt {
		return nil, nil
	}
	if err := t.ask(ctx); err != nil {
		return nil, err
	}
	if t.floor != 0 {
		return nil, errBehind
	}
	return &step{unknown: true, rebuilt: t.rebuilt}, nil
}

func (t *tracker) takeSnapshot(ctx context.Context, s *registrypb.GroupSnapshot) (*step, error) {
	if s.GetRevision() == 0 {
		return nil, errGap
	}
	if s.GetRevision() == t.revision {
		t.settleBy(s)
	}
	if !t.believable(s) {
		if err := t.ask(ctx); err != nil {
			return nil, err
		}
		if !t.believable(s) {
			return nil, errBehind
		}
	}
	if s.GetRevision() == t.revision && s.GetFingerprint() == t.fingerprint && !t.rebuilt {
		t.resync = false
		return nil, nil
	}
	return &step{
		reset: true, rebuilt: t.rebuilt, revision: s.GetRevision(), index: s.GetIndex(), fingerprint: s.GetFingerprint(),
		params: paramsFromProto(s.GetConfig()), put: sortedMembers(s.GetMembers()),
	}, nil
}

func (t *tracker) believable(s *registrypb.GroupSnapshot) bool {
	return s.GetRevision() > t.floor || s.GetRevision() == t.floor && s.GetFingerprint() == t.floorPrint
}

func (t *tracker) takeDelta(d *registrypb.GroupDelta) (*step, error) {
	if t.resync || t.rebuilt || t.revision == 0 || d.GetFrom() != t.revision || d.GetRevision() <= t.revision {
		return nil, errGap
	}
	return &step{
		revision: d.GetRevision(), index: d.GetIndex(), fingerprint: d.GetFingerprint(),
		params: paramsFromProto(d.GetConfig()), put: sortedMembers(d.GetPut()), removed: d.GetRemoved(),
	}, nil
}

// ask lets the leader say where the group is, and lowers the floor if that is
// below it. It returns errBehind if the leader is where this client was, or
// further.
func (t *tracker) ask(ctx context.Context) error {
	var r Receipt
	_, _, err := t.c.Group(ctx, t.group, Linearizable(), WithReceipt(&r))
	switch {
	case errors.Is(err, ErrUnknownGroup):
		r = Receipt{}
	case err != nil:
		return fmt.Errorf("%w, and the leader cannot be asked: %w", errBehind, err)
	}
	if r.Revision == t.floor {
		t.settle()
	}
	if r.Revision > t.floor || r.Revision == t.floor && r.Fingerprint == t.floorPrint && t.floor != 0 {
		return errBehind
	}
	if t.floor == 0 {
		return nil
	}
	t.c.cfg.logger.Warn("the cluster was rebuilt: a group went back",
		"group", t.group, "seen", t.floor, "revision", r.Revision)
	t.floor, t.floorPrint, t.rebuilt = r.Revision, r.Fingerprint, true
	return nil
}

// commit makes a step's state the one to lead on from.
func (t *tracker) commit(s *step) {
	t.revision, t.fingerprint, t.unknown = s.revision, s.fingerprint, s.unknown
	t.floor, t.floorPrint = s.revision, s.fingerprint
	t.rebuilt, t.resync = false, false
	t.c.observe(s.index)
}

// probe asks a node, by a call, which revision its state has and when it last
// heard from the leader. It serves where no progress does: under lasting change
// a stream has always something else to say, and a new one says nothing of it.
func (t *tracker) probe(ctx context.Context, s *session, f *freshness) {
	now := time.Now()
	if s.events > 0 && (ageOf(f.since()) <= 2*t.c.cfg.progress || now.Sub(s.probed) < t.c.cfg.progress) {
		return
	}
	s.probed = now
	ctx, cancel := context.WithTimeout(ctx, t.c.cfg.attemptTimeout)
	defer cancel()
	api := registrypb.NewRegistryClient(s.conn)
	var r *registrypb.Receipt
	if m, err := api.Match(ctx, &registrypb.MatchRequest{Group: t.group}); err == nil {
		r = m.GetReceipt()
	} else if errorFromStatus("watch", err).Reason == ReasonEmptyGroup {
		if m, err := api.Members(ctx, &registrypb.MembersRequest{Group: t.group}); err == nil {
			r = m.GetReceipt()
		}
	}
	if r.GetRevision() != 0 {
		f.promise(r.GetRevision(), now.Add(-max(r.GetLag().AsDuration(), 0)))
	}
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

// merge returns the members after a step; old and put are ordered by id.
func merge(old []Member, s *step) []Member {
	if s.reset {
		return s.put
	}
	gone := make(map[string]bool, len(s.removed))
	for _, id := range s.removed {
		gone[id] = true
	}
	out, put := make([]Member, 0, len(old)+len(s.put)), s.put
	for _, m := range old {
		for len(put) > 0 && put[0].ID < m.ID {
			out, put = append(out, put[0]), put[1:]
		}
		switch {
		case len(put) > 0 && put[0].ID == m.ID:
			out, put = append(out, put[0]), put[1:]
		case !gone[m.ID]:
			out = append(out, m)
		}
	}
	return append(out, put...)
}

// ringMembers is what the ring needs of members.
func ringMembers(ms []Member) []ring.Member {
	out := make([]ring.Member, len(ms))
	for i, m := range ms {
		out[i] = ring.Member{ID: m.ID, Weight: m.Weight, State: ringState(m.State)}
	}
	return out
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
