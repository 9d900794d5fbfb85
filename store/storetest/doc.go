// Package storetest runs a cluster of stores in one process, for tests. The
// nodes have real logs on disk and real raft; what lies between them is a
// [Network] in memory, which can be cut between any two nodes, in one direction
// or both, and healed.
//
//	c := storetest.New(t)
//	c.Three()                       // n1, n2, n3
//	old := c.Leader()
//	c.Net.Isolate(old.Bind)
//	c.LeaderOf("n2", "n3")          // waits for the next
package storetest
