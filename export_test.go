package registry

import "github.com/werbenhu/registry/fsm"

// Machine is the node's state machine, for tests that damage it.
func (n *Node) Machine() *fsm.Machine { return n.store.Machine() }
