package fsm

import (
	"slices"

	"github.com/werbenhu/registry/ring"
)

// batch is the next state under construction. Groups that are touched are
// opened once and closed once, however many entries touch them.
type batch struct {
	next  State
	index uint64
	term  uint64

	open  map[string]*openGroup
	order []*openGroup // in the order of opening: a map has none
	// added is how many more groups there are than in next.groups.
	added int

	metas *metas

	changes []Change
	terms   []uint64
	marks   []Mark

	restored *State // replaces the state
}

// openGroup is a group with its members' tree in a transaction.
type openGroup struct {
	Group
	txn     *table[*Member]
	changed bool     // visibly
	old     *Group   // before the batch; nil for a new group
	touched []string // ids of members that may have changed visibly
	deleted bool     // and not created again: it has neither members nor a head
}

func newBatch(s *State, shared *metas) *batch {
	return &batch{next: *s, open: make(map[string]*openGroup), metas: shared}
}

func (b *batch) begin(e Entry) {
	b.index, b.term = e.Index, e.Term
	b.next.index = e.Index
}

// group opens an existing group; nil when there is none.
func (b *batch) group(name string) *openGroup {
	if g := b.open[name]; g != nil {
		if g.deleted {
			return nil
		}
		return g
	}
	old := b.next.Group(name)
	if old == nil {
		return nil
	}
	return b.track(&openGroup{Group: *old, txn: old.members.IsoCopy(), old: old})
}

// createGroup adds an empty group. Its digest is counted when it is closed.
func (b *batch) createGroup(name string) (*openGroup, error) {
	if b.next.groups.Len()+b.added >= MaxGroups {
		return nil, exhausted("groups", MaxGroups)
	}
	b.added++
	empty := Group{Name: name, Params: ring.Params{VirtualNodes: ring.DefaultVirtualNodes}}
	if g := b.open[name]; g != nil { // deleted before in this batch
		g.Group, g.deleted = empty, false
		return g, nil
	}
	return b.track(&openGroup{Group: empty, txn: newTable[*Member]()}), nil
}

// delete removes a group without members.
func (b *batch) delete(g *openGroup) {
	g.deleted, g.changed = true, true
	b.added--
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

// put stores a member and notes the change.
func (b *batch) put(g *openGroup, m *Member) {
	old := b.set(g, m)
	b.changes = append(b.changes, Change{Group: g.Name, Prev: old, Next: m})
	if m.ModifiedIndex == b.index {
		g.Revision, g.changed = b.index, true
		g.touched = append(g.touched, m.ID)
	}
}

// set stores a member and updates the sums of its group.
func (b *batch) set(g *openGroup, m *Member) (old *Member) {
	m.digest = memberDigest(g.Name, m)
	old, had := g.txn.Set(m.ID, m)
	if had {
		b.subtract(g, old)
	}
	b.next.members++
	g.weight += uint64(m.Weight)
	g.inputs.Add(m.ID, g.points(m))
	g.digest += m.digest
	b.next.digest += m.digest
	return old
}

func (b *batch) remove(g *openGroup, m *Member) {
	g.txn.Delete(m.ID)
	b.subtract(g, m)
	b.changes = append(b.changes, Change{Group: g.Name, Prev: m})
	g.Revision, g.changed = b.index, true
	g.touched = append(g.touched, m.ID)
}

// subtract takes a member out of the sums.
func (b *batch) subtract(g *openGroup, m *Member) {
	b.next.members--
	g.weight -= uint64(m.Weight)
	g.inputs.Remove(m.ID, g.points(m))
	g.digest -= m.digest
	b.next.digest -= m.digest
}

func (b *batch) fence(group, id, instance string) {
	next, delta := b.next.fences.add(&Fence{Group: group, ID: id, Instance: instance, Index: b.index})
	b.next.fences = next
	b.next.digest += delta
}

// unfence removes the fence of a member's instance, if there is one.
func (b *batch) unfence(group string, m *Member) {
	if b.next.fences.has(group, m.ID, m.Instance) {
		next, delta := b.next.fences.remove(instanceKey(group, m.ID, m.Instance))
		b.next.fences = next
		b.next.digest += delta
	}
}

// finish closes the groups and returns the next state, and the visible changes of
// groups.
func (b *batch) finish() (*State, []GroupChange) {
	var changes []GroupChange
	if len(b.order) > 0 {
		b.next.groups = b.next.groups.IsoCopy()
	}
	for _, open := range b.order {
		if open.deleted {
			if b.next.groups.Delete(open.Name); open.old != nil {
				changes = append(changes, GroupChange{Prev: open.old})
			}
			continue
		}
		g := open.Group
		g.members = open.txn
		head := groupHeadDigest(&g)
		g.digest += head
		b.next.digest += head
		b.next.groups.Set(g.Name, &g)
		if open.changed {
			changes = append(changes, open.change(&g))
		}
	}
	next := b.next
	return &next, changes
}

// change returns the visible changes of a group by the batch.
func (o *openGroup) change(now *Group) GroupChange {
	c := GroupChange{Prev: o.old, Next: now}
	previous := func(string) *Member { return nil }
	if o.old != nil {
		previous = o.old.Member
	}
	slices.Sort(o.touched)
	for _, id := range slices.Compact(o.touched) {
		before, m := previous(id), now.Member(id)
		if before != nil && (m == nil || m.CreatedIndex != before.CreatedIndex) {
			c.Removed = append(c.Removed, id)
		}
		if m != nil && (before == nil || before.ModifiedIndex != m.ModifiedIndex) {
			c.Put = append(c.Put, m)
		}
	}
	return c
}

// setParams changes the parameters of the group's ring.
func (o *openGroup) setParams(p ring.Params) {
	if p.VirtualNodes == o.Params.VirtualNodes {
		o.Params = p
		return
	}
	o.Params, o.inputs = p, ring.Inputs{}
	o.txn.Scan(func(_ string, m *Member) bool {
		o.inputs.Add(m.ID, o.points(m))
		return true
	})
}
