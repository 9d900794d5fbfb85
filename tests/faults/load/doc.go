// Package load is the clients of a run: they work on a cluster while faults
// are injected, and note all that they did and saw, for package check to judge.
//
//	linear   writes and linearizable reads of few members, pinned to nodes
//	ledger   registrations that nobody else touches, one after another at each
//	         node; they also tell when the cluster works
//	beats    members on short leases, that beat, and that stop to
//	watches  a watch of one group and a watch of all, at each node
//	session  reads that go from node to node and never back in time
//	polls    every node's status: digests and terms
//
// All groups of a load have its prefix, so that loads do not meet.
package load
