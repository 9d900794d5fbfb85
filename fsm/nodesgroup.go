package fsm

import "github.com/werbenhu/registry/ring"

// NodesGroupName is the reserved name of the group of the cluster's nodes, which
// can be read and not changed.
const NodesGroupName = "registry-group"

// NodesGroup is the cluster's nodes as a group: their ids and client addresses,
// weight 1, and the default parameters. It is not in the list of groups. Its
// revision is the index of the entry that last changed a node.
func (s *State) NodesGroup() *Group {
	g := &Group{
		Name: NodesGroupName, Params: ring.Params{VirtualNodes: ring.DefaultVirtualNodes},
		Revision: s.nodesRevision, members: newTable[*Member](),
	}
	for n := range s.Nodes {
		m := &Member{ID: n.ID, Addr: n.Addr, Weight: 1}
		g.members.Set(m.ID, m)
		g.weight += uint64(m.Weight)
		g.inputs.Add(m.ID, g.points(m))
	}
	return g
}

// GroupToRead is Group, or NodesGroup for the reserved name.
func (s *State) GroupToRead(name string) *Group {
	if name == NodesGroupName {
		return s.NodesGroup()
	}
	return s.Group(name)
}

// validateGroup checks the name of a group that is to be changed.
func validateGroup(name string) error {
	if name == NodesGroupName {
		return &FieldError{Field: "group", Limit: "another name: this one is reserved for the cluster's nodes", Got: shorten(name)}
	}
	return ValidateName("group", name)
}
