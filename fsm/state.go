package fsm

import (
	"time"

	"github.com/tidwall/btree"

	"github.com/werbenhu/registry/ring"
)

// State is the whole replicated state at one log index. It never changes
// after it was published; all methods are safe for concurrent use.
type State struct {
	index   uint64
	term    uint64
	leader  string
	digest  uint64
	members int // of all groups
	// nodesRevision is the index of the entry that last changed the nodes.
	nodesRevision uint64
	// tokensRevision is the index of the entry that last changed the tokens.
	tokensRevision uint64
	// restoredLeases counts the lease ids that restorations have given out.
	restoredLeases uint64
	level          uint32 // see FeatureLevel

	groups *table[*Group]
	nodes  *table[*Node]
	fences fences
	tokens tokens
	staged *staged // nil: no restoration has begun
}

// Group is a named set of members with the parameters of its ring.
type Group struct {
	Name   string
	Params ring.Params
	// Revision is the log index of the last change that readers can see.
	Revision uint64

	inputs  ring.Inputs // of the ring
	weight  uint64      // sum over all members, whatever their state
	digest  uint64
	members *table[*Member]
}

// points is the member's number of points in the group's ring.
func (g *Group) points(m *Member) int {
	return ring.Member{Weight: int(m.Weight), State: m.State}.Points(g.Params.VirtualNodes)
}

// Member is one registration in a group. A published member never changes.
type Member struct {
	ID     string
	Addr   string
	Meta   []Pair // sorted by key; members with equal metadata may share it
	Weight uint32
	State  ring.State
	// Instance is the random token of the process that registered.
	Instance string
	// Token is the id of the token that the member belongs to; empty: of none.
	Token string
	// LeaseID is the log index of the entry by which Instance first registered.
	LeaseID uint64
	// Epoch counts the registrations and the holds under LeaseID. An expiry names
	// an epoch, and has no effect on a later one.
	Epoch uint64
	TTL   time.Duration
	// Hold is how long a held member stays without a sign of life, where that is
	// longer than its TTL; 0 for one that is not held, or held for as long as its
	// lease is renewed.
	Hold time.Duration
	// CreatedIndex and ModifiedIndex are the log indexes of the entries that
	// created the member and made its last visible change.
	CreatedIndex  uint64
	ModifiedIndex uint64
	// RegisteredMS is the leader's clock at registration, Unix milliseconds.
	RegisteredMS int64

	digest uint64
}

// Pair is one entry of a member's metadata.
type Pair struct{ Key, Value string }

// Node is what the state has of a node, beyond raft's configuration.
type Node struct {
	ID          string
	Bind        string
	Addr        string // client address
	Version     string
	Incarnation string // random id of the node's data directory
	Nonvoter    bool   // stays a non-voter
	Zone        string // failure zone; empty: none is named

	digest uint64
}

// table is a map ordered by its keys. A published one never changes: changes are
// made to its IsoCopy, which copies the path to each change and shares the rest.
type table[V any] = btree.Map[string, V]

// tableDegree is a compromise: a member takes about 50 bytes of its group's table,
// and a change copies less than a kilobyte for each level.
const tableDegree = 16

func newTable[V any]() *table[V] { return btree.NewMap[string, V](tableDegree) }

// get returns the value of a key, or the zero V.
func get[V any](t *table[V], key string) V {
	v, _ := t.Get(key)
	return v
}

func newState() *State {
	return &State{
		groups: newTable[*Group](),
		nodes:  newTable[*Node](),
		fences: newFences(),
		tokens: newTokens(),
	}
}

// Index is the last applied log index.
func (s *State) Index() uint64 { return s.index }

// Term is the term of the last leader whose first entry was applied.
func (s *State) Term() uint64 { return s.term }

// Leader is the node id of that leader.
func (s *State) Leader() string { return s.leader }

// Digest is a sum over all records of the state: equal states have equal
// digests. It finds accidental differences; it is no protection against forgery.
func (s *State) Digest() uint64 { return s.digest }

// Group returns the named group, or nil.
func (s *State) Group(name string) *Group { return get(s.groups, name) }

// Groups calls yield for every group, ordered by name, until it returns false.
func (s *State) Groups(yield func(*Group) bool) {
	s.groups.Scan(func(_ string, g *Group) bool { return yield(g) })
}

// GroupsFrom is Groups beginning with the first name at or after the given one.
func (s *State) GroupsFrom(name string) func(yield func(*Group) bool) {
	return func(yield func(*Group) bool) {
		s.groups.Ascend(name, func(_ string, g *Group) bool { return yield(g) })
	}
}

// GroupCount is the number of groups.
func (s *State) GroupCount() int { return s.groups.Len() }

// MemberCount is the number of members of all groups, whatever their state.
func (s *State) MemberCount() int { return s.members }

// NodeCount is the number of nodes that the state has.
func (s *State) NodeCount() int { return s.nodes.Len() }

// FenceCount is the number of fences.
func (s *State) FenceCount() int { return s.fences.byAge.Len() }

// NodesVersion is comparable: equal values mean equal nodes and the same leader.
type NodesVersion struct {
	nodes  *table[*Node]
	term   uint64
	leader string
}

// NodesVersion returns the version of the state's nodes and leader.
func (s *State) NodesVersion() NodesVersion { return NodesVersion{s.nodes, s.term, s.leader} }

// Node returns the named node, or nil.
func (s *State) Node(id string) *Node { return get(s.nodes, id) }

// Nodes calls yield for every node, ordered by id, until it returns false.
func (s *State) Nodes(yield func(*Node) bool) {
	s.nodes.Scan(func(_ string, n *Node) bool { return yield(n) })
}

// Member returns the named member, or nil.
func (g *Group) Member(id string) *Member { return get(g.members, id) }

// Members calls yield for every member, ordered by id, until it returns false.
func (g *Group) Members(yield func(*Member) bool) {
	g.members.Scan(func(_ string, m *Member) bool { return yield(m) })
}

// MembersAfter is Members beginning with the first id after the given one.
func (g *Group) MembersAfter(id string) func(yield func(*Member) bool) {
	return func(yield func(*Member) bool) {
		g.members.Ascend(id, func(at string, m *Member) bool { return at == id || yield(m) })
	}
}

// Len is the number of members, whatever their state.
func (g *Group) Len() int { return g.members.Len() }

// Fingerprint is that of the group's ring at this revision; see package ring.
func (g *Group) Fingerprint() uint64 { return g.inputs.Fingerprint(g.Params) }

// Points is at least the number of points of the group's ring: draining members
// are counted.
func (g *Group) Points() uint64 { return g.weight * uint64(g.Params.VirtualNodes) }

// Digest is the group's part of the state's digest.
func (g *Group) Digest() uint64 { return g.digest }
