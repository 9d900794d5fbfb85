// Package fsm is the replicated state machine of the registry: groups, their
// members and leases, the cluster's nodes, and tokens. A [Machine] is given the entries of
// the log in their order; readers take its [State].
//
//	m := fsm.New(observers...)
//	data, err := fsm.Encode(&fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{Group: "web", VirtualNodes: 256}}})
//	results := m.Apply([]fsm.Entry{{Index: 1, Term: 1, Data: data}})
//	group := m.State().Group("web") // group.Revision is 1
//
// # Promises
//
// The state is a pure function of the log. Apply reads no clock, draws no
// random number, ranges over no map, computes no float, starts no I/O: at an
// equal applied index all nodes have the same [State.Digest], whatever their
// CPU. Times in commands were stamped by the leader and are for display only.
//
// A published [State] never changes. Apply builds the next one beside it from
// copy-on-write trees (a change copies the path to it and shares the rest) and
// publishes it with one atomic store, so readers take no lock, a snapshot is a
// reference, and a reader that holds a state sees one moment of the log.
//
// Every change updates the fingerprint of its group's ring ([Group.Fingerprint]).
// Package rings builds rings on demand, and package watch serves watchers: both
// are observers of the machine.
//
// # Not promised
//
// Commands are not validated here: [Validate] checks them before they reach the
// log. An entry that cannot be decoded is a programming error or
// a corrupt disk, and Apply panics with a [CorruptEntryError].
package fsm
