package sdk

import (
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// State is a member's part in its group's ring.
type State int

const (
	// StateActive: the member owns keys.
	StateActive State = iota
	// StateDraining: the member owns no keys and may finish its work. Its keys have
	// the owners that they would have without it.
	StateDraining
	// StateHeld: the member restarts and keeps its keys; its fallback serves them.
	StateHeld
)

// String returns active, draining or held.
func (s State) String() string {
	switch s {
	case StateDraining:
		return "draining"
	case StateHeld:
		return "held"
	default:
		return "active"
	}
}

// Member is one registered service of a group. Members of one answer may
// share their Meta map: treat it as read-only.
type Member struct {
	ID     string
	Addr   string
	Weight int
	Meta   map[string]string
	State  State
	TTL    time.Duration
	// Hold, of a held member, is how long it stays without heartbeats, if that is
	// longer than its TTL; 0: as long as its lease is renewed.
	Hold time.Duration
	// Fallback serves the keys of a held owner: the first of the key's first 64
	// owners that is not held. It is set in the results of Match, MatchN and
	// MatchMany; nil if the owner is not held, and if all are.
	Fallback *Member

	// CreatedIndex and ModifiedIndex are the log indexes of the entry that
	// created the member and of the last that changed what readers see.
	CreatedIndex  uint64
	ModifiedIndex uint64
	// RegisteredAt is by the clock of the leader at that time, for display.
	RegisteredAt time.Time
}

// Serving returns the member to ask: the fallback of a held owner, and otherwise the
// member itself.
func (m Member) Serving() Member {
	if m.Fallback != nil {
		return *m.Fallback
	}
	return m
}

// Group is a named set of members and the parameters of its ring.
type Group struct {
	Name string
	// VirtualNodes is the number of points that a member of weight 1 has.
	VirtualNodes int
	// Bound is the largest share a member may have, in per mille of its fair
	// share; 0 means that there is no bound.
	Bound int
	// Members counts the group's members, whatever their state.
	Members int
	// Revision is the log index of the group's last change.
	Revision uint64
}

// SetGroup creates a group or changes its ring's parameters.
type SetGroup struct {
	Group string
	// VirtualNodes is a power of two, 64–4096; 0 means the server's default.
	VirtualNodes int
	// Bound is in per mille of the fair share; 0 means that there is no bound.
	Bound int
	// ExpectedRevision, when not 0, refuses the change with
	// ErrRevisionMismatch unless the group is at this revision.
	ExpectedRevision uint64
}

// GroupDeletion is how to delete a group; the zero value deletes an empty one.
type GroupDeletion struct {
	// Force removes the members too.
	Force bool
	// ExpectedRevision, when not 0, refuses the deletion with
	// ErrRevisionMismatch unless the group is at this revision.
	ExpectedRevision uint64
}

// MemberUpdate changes what is not nil: the weight or the state, or both.
type MemberUpdate struct {
	Weight *int
	State  *State
	// Hold, with StateHeld, is how long the member stays without heartbeats: 1 s –
	// 24 h, or its TTL if that is longer; 0: as long as its lease is renewed. While
	// it lasts, the next registration of the id takes over, and Close of the old one
	// leaves the member held.
	Hold time.Duration
}

// UnknownLag is the lag of a node that answers and has heard from no leader since its
// start (serve -serve-stale-on-start): how old its state is is not known.
const UnknownLag = 100 * 365 * 24 * time.Hour

// Receipt is what an answer was computed from.
type Receipt struct {
	// Index is the last log index that the answering node had applied.
	Index uint64
	// Revision is the log index of the group's last change.
	Revision uint64
	// Fingerprint of the inputs of the group's ring at the revision: equal members
	// and parameters give equal fingerprints on every node.
	Fingerprint uint64
	// ClusterID is the id of the cluster, made when it was formed: see
	// ErrWrongCluster.
	ClusterID string
	// Lag is the time since the answering node last heard from the leader; [UnknownLag]
	// if it has heard from none since its start.
	Lag time.Duration
	// Node is the id of the answering node.
	Node string
}

// Status is a cluster as one of its nodes sees it.
type Status struct {
	Cluster   string
	ClusterID string // as in Receipt
	// Leader is the id of the leader, empty when there is none.
	Leader string
	Term   uint64
	// FeatureLevel of the cluster, as the answering node has applied it: 1 or more.
	FeatureLevel int
	Nodes        []NodeStatus
}

// NodeStatus is one node of a cluster.
type NodeStatus struct {
	ID string
	// Bind is the address for other nodes, Addr the one for clients.
	Bind string
	Addr string
	// Role is leader, follower, candidate or nonvoter; empty if the node does not
	// answer.
	Role         string
	AppliedIndex uint64
	CommitIndex  uint64
	// Digest of the whole replicated state at AppliedIndex.
	Digest uint64
	// Fingerprint and Revision are those of the group that was asked for.
	Fingerprint uint64
	Revision    uint64
	// RingDigest is the digest of the points of the node's ring of that group; 0 if
	// it has none.
	RingDigest uint64
	Version    string
	// Zone is the failure zone that the node was started in; empty if it names none, or
	// the cluster is below feature level 2.
	Zone string
	// FeatureLevel is the newest feature level that the node supports; 0 if it does not
	// answer.
	FeatureLevel int
	Voter        bool
	Ready        bool
	// Lag is the time since the node last heard from the leader, as in [Receipt].
	Lag time.Duration
	// Error is why the node did not answer.
	Error string
	// Alarms are the node's alarms for the operator: a state that differs from the
	// others', a disk that is nearly full. The leader's are also those of the cluster: the
	// loss of one zone would lose the quorum.
	Alarms []string
	// Removal is set for a voter that the leader does not reach, if the leader removes
	// dead voters.
	Removal *Removal
}

// Removal is what the leader does with a voter that it does not reach.
type Removal struct {
	// Unreachable is the time since the last contact, or since the leader leads.
	Unreachable time.Duration
	// RemovedIn is when the leader removes the voter, if nothing changes.
	RemovedIn time.Duration
	// Kept is why the leader does not remove the voter; RemovedIn is 0 then.
	Kept string
}

func memberFromProto(m *registrypb.Member) Member {
	out := Member{
		ID:            m.GetId(),
		Addr:          m.GetAddr(),
		Weight:        int(m.GetWeight()),
		Meta:          m.GetMeta(),
		State:         stateFromProto(m.GetState()),
		TTL:           m.GetTtl().AsDuration(),
		Hold:          m.GetHold().AsDuration(),
		CreatedIndex:  m.GetCreatedIndex(),
		ModifiedIndex: m.GetModifiedIndex(),
	}
	if t := m.GetRegisteredAt(); t != nil {
		out.RegisteredAt = t.AsTime()
	}
	return out
}

func membersFromProto(ms []*registrypb.Member) []Member {
	out := make([]Member, len(ms))
	for i, m := range ms {
		out[i] = memberFromProto(m)
	}
	return out
}

// stateFromProto maps an unknown state to the zero value, as the API requires.
func stateFromProto(s registrypb.MemberState) State {
	switch s {
	case registrypb.MemberState_MEMBER_STATE_DRAINING:
		return StateDraining
	case registrypb.MemberState_MEMBER_STATE_HELD:
		return StateHeld
	default:
		return StateActive
	}
}

func stateToProto(s State) registrypb.MemberState {
	switch s {
	case StateDraining:
		return registrypb.MemberState_MEMBER_STATE_DRAINING
	case StateHeld:
		return registrypb.MemberState_MEMBER_STATE_HELD
	default:
		return registrypb.MemberState_MEMBER_STATE_ACTIVE
	}
}

func groupFromProto(g *registrypb.Group) Group {
	return Group{
		Name:         g.GetName(),
		VirtualNodes: int(g.GetConfig().GetVirtualNodes()),
		Bound:        int(g.GetConfig().GetBound()),
		Members:      int(g.GetMembers()),
		Revision:     g.GetRevision(),
	}
}

func receiptFromProto(r *registrypb.Receipt) Receipt {
	return Receipt{
		Index:       r.GetIndex(),
		Revision:    r.GetRevision(),
		Fingerprint: r.GetFingerprint(),
		ClusterID:   r.GetClusterId(),
		Lag:         r.GetLag().AsDuration(),
		Node:        r.GetNode(),
	}
}

func statusFromProto(s *registrypb.StatusResponse) Status {
	out := Status{
		Cluster:      s.GetCluster(),
		ClusterID:    s.GetClusterId(),
		Leader:       s.GetLeader(),
		Term:         s.GetTerm(),
		FeatureLevel: max(int(s.GetFeatureLevel()), 1), // nodes of 0.1.0 do not tell it
		Nodes:        make([]NodeStatus, len(s.GetNodes())),
	}
	for i, n := range s.GetNodes() {
		out.Nodes[i] = NodeStatus{
			ID: n.GetId(), Bind: n.GetBind(), Addr: n.GetAddr(), Role: n.GetRole(),
			AppliedIndex: n.GetAppliedIndex(), CommitIndex: n.GetCommitIndex(),
			Digest: n.GetDigest(), Fingerprint: n.GetFingerprint(), Revision: n.GetRevision(), RingDigest: n.GetRingDigest(),
			Version: n.GetVersion(), Zone: n.GetZone(), Voter: n.GetVoter(), Ready: n.GetReady(),
			Lag: n.GetLag().AsDuration(), Error: n.GetError(), Alarms: n.GetAlarms(),
		}
		if n.GetRole() != "" {
			out.Nodes[i].FeatureLevel = max(int(n.GetFeatureLevel()), 1)
		}
		if r := n.GetRemoval(); r != nil {
			out.Nodes[i].Removal = &Removal{Unreachable: r.GetUnreachable().AsDuration(), RemovedIn: r.GetRemovedIn().AsDuration(), Kept: r.GetKept()}
		}
	}
	return out
}
