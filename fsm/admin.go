package fsm

import (
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

// MaxGroups bounds the number of groups.
const MaxGroups = 100_000

// termStart records the leader. It is the first entry of every leader: its leases
// and consistent reads wait for it.
func (b *batch) termStart(c *fsmpb.TermStart) Result {
	if b.next.term == 0 && c.FeatureLevel != 0 { // a new cluster
		b.raiseLevel(c.FeatureLevel)
	}
	if b.next.term != 0 {
		b.next.digest -= termDigest(b.next.term, b.next.leader)
	}
	b.next.term, b.next.leader = b.term, c.Node
	b.next.digest += termDigest(b.next.term, b.next.leader)
	b.terms = append(b.terms, b.term)
	b.dropStaged() // the leader that began the restoration has ended
	return Result{}
}

func (b *batch) setNode(c *fsmpb.Node) Result {
	n := &Node{ID: c.GetId(), Bind: c.GetBind(), Addr: c.GetAddr(), Version: c.GetVersion(), Incarnation: c.GetIncarnation(), Nonvoter: c.GetNonvoter(), Zone: c.GetZone()}
	n.digest = nodeDigest(n)
	b.next.nodes = b.next.nodes.IsoCopy()
	old, had := b.next.nodes.Set(n.ID, n)
	if had {
		b.next.digest -= old.digest
	}
	b.next.digest += n.digest
	if !had || old.digest != n.digest {
		b.next.nodesRevision = b.index
	}
	return Result{}
}

func (b *batch) removeNode(c *fsmpb.RemoveNode) Result {
	b.next.nodes = b.next.nodes.IsoCopy()
	old, had := b.next.nodes.Delete(c.Id)
	if had {
		b.next.digest -= old.digest
		b.next.nodesRevision = b.index
	}
	return Result{Removed: had}
}

// setGroup creates a group or changes its ring's parameters.
func (b *batch) setGroup(c *fsmpb.SetGroup) Result {
	g := b.group(c.Group)
	params := ring.Params{VirtualNodes: int(c.VirtualNodes), Bound: int(c.Bound)}
	if g != nil && g.Params == params {
		return Result{Revision: g.Revision} // also for a retry
	}
	if c.ExpectedRevision != 0 && (g == nil || g.Revision != c.ExpectedRevision) {
		at := uint64(0)
		if g != nil {
			at = g.Revision
		}
		return Result{Revision: at, Err: revisionMismatch(c.Group, at, c.ExpectedRevision)}
	}
	if g != nil {
		if err := pointsFit(g.Points(), g.weight*uint64(params.VirtualNodes)); err != nil {
			return Result{Revision: g.Revision, Err: err}
		}
	} else {
		var err error
		if g, err = b.createGroup(c.Group); err != nil {
			return Result{Err: err}
		}
	}
	g.setParams(params)
	g.Revision, g.changed = b.index, true
	return Result{Revision: g.Revision}
}
