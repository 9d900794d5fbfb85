package fsm

import (
	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/werbenhu/registry/ring"
)

// batch is the next state under construction. Groups that are touched are
// opened once and closed once, however many entries touch them.
type batch struct {
	next  State
	index uint64
	term  uint64

	rings  *ringBuilder
	groups *iradix.Txn[*Group]
	nodes  *iradix.Txn[*Node]
	open   map[string]*openGroup
	order  []*openGroup // as opened, so that nothing ranges over the map
	// created counts those of them that are not in next.groups yet.
	created int

	changes []Change
	terms   []uint64
	marks   []Mark
}

// openGroup is a group with its members' tree in a transaction.
type openGroup struct {
	Group
	txn   *iradix.Txn[*Member]
	count int // members in txn
	// stale says that the ring has to be looked at again.
	stale bool
}

func newBatch(s *State, rings *ringBuilder) *batch {
	return &batch{next: *s, rings: rings, open: make(map[string]*openGroup)}
}

func (b *batch) begin(e Entry) {
	b.index, b.term = e.Index, e.Term
	b.next.index = e.Index
}

// group opens an existing group; nil when there is none.
func (b *batch) group(name string) *openGroup {
	if g := b.open[name]; g != nil {
		return g
	}
	old := b.next.Group(name)
	if old == nil {
		return nil
	}
	return b.track(&openGroup{Group: *old, txn: old.members.Txn(), count: old.members.Len()})
}

// createGroup adds an empty group. Its digest is counted when it is closed.
func (b *batch) createGroup(name string) (*openGroup, error) {
	if b.next.groups.Len()+b.created >= MaxGroups {
		return nil, exhausted("groups", MaxGroups)
	}
	g := &openGroup{
		Group: Group{
			Name:   name,
			Params: ring.Params{VirtualNodes: ring.DefaultVirtualNodes},
			cell:   b.rings.newCell(name),
		},
		txn: iradix.New[*Member]().Txn(),
	}
	b.created++
	return b.track(g), nil
}

func (b *batch) track(g *openGroup) *openGroup {
	b.open[g.Name] = g
	b.order = append(b.order, g)
	// Take the head out of the digest; finish puts the new head in.
	if g.Revision != 0 {
		g.digest -= groupHeadDigest(&g.Group)
		b.next.digest -= groupHeadDigest(&g.Group)
	}
	return g
}

// put stores a member and keeps the sums of its group.
func (b *batch) put(g *openGroup, m *Member) {
	m.digest = memberDigest(g.Name, m)
	old, had := g.txn.Insert([]byte(m.ID), m)
	if had {
		b.forget(g, old)
	}
	g.count++
	b.next.members++
	g.weight += uint64(m.Weight)
	b.next.points += uint64(m.Weight) * uint64(g.Params.VirtualNodes)
	g.digest += m.digest
	b.next.digest += m.digest
	b.changes = append(b.changes, Change{Group: g.Name, Prev: old, Next: m})
	if m.ModifiedIndex == b.index {
		g.Revision, g.stale = b.index, true
	}
}

func (b *batch) remove(g *openGroup, m *Member) {
	g.txn.Delete([]byte(m.ID))
	b.forget(g, m)
	b.changes = append(b.changes, Change{Group: g.Name, Prev: m})
	g.Revision, g.stale = b.index, true
}

func (b *batch) forget(g *openGroup, m *Member) {
	g.count--
	b.next.members--
	g.weight -= uint64(m.Weight)
	b.next.points -= uint64(m.Weight) * uint64(g.Params.VirtualNodes)
	g.digest -= m.digest
	b.next.digest -= m.digest
}

func (b *batch) fence(group, id, instance string) {
	next, delta := b.next.fences.add(&Fence{Group: group, ID: id, Instance: instance, Index: b.index})
	b.next.fences = next
	b.next.digest += delta
}

// finish closes the groups and returns the next state, and the groups whose
// rings have to be looked at.
func (b *batch) finish() (*State, []*Group) {
	var dirty []*Group
	if len(b.order) > 0 {
		b.groups = b.next.groups.Txn()
	}
	for _, open := range b.order {
		g := open.Group
		g.members = open.txn.Commit()
		head := groupHeadDigest(&g)
		g.digest += head
		b.next.digest += head
		b.groups.Insert([]byte(g.Name), &g)
		if open.stale {
			dirty = append(dirty, &g)
		}
	}
	if b.groups != nil {
		b.next.groups = b.groups.Commit()
	}
	if b.nodes != nil {
		b.next.nodes = b.nodes.Commit()
	}
	next := b.next
	return &next, dirty
}
