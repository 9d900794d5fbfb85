// Package storetest runs a cluster of stores in one process, for tests. The nodes have
// logs on disk and run raft; a [Network] in memory connects them. It can be cut between
// any two nodes, in one direction or both, and healed.
//
//	c := storetest.New(t)
//	c.Three()                       // n1, n2, n3
//	old := c.Leader()
//	c.Net.Isolate(old.Bind)
//	c.LeaderOf("n2", "n3")          // waits for the next leader
package storetest
