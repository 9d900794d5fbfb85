// Package store is one node of the cluster: hashicorp/raft over a log on
// disk and file snapshots, the leader's work (leases, expiry, promotion of joined
// nodes), reads with a stated freshness, and membership of the cluster.
//
//	s, err := store.Open(store.Config{
//		ID: "n1", Cluster: "main", DataDir: dir, BindAdvertise: "10.0.0.1:7370", Addr: "10.0.0.1:9800",
//		Listener: listener, DialRaft: rpc.DialRaft, Peers: rpc.NewPeers(),
//	})
//	defer s.Close()
//	err = s.Form(ctx, store.Formation{}) // a cluster of one node, or the one that it is in
//	<-s.Ready()
//	result, err := s.Write(ctx, command) // on the leader
//	group := s.State().Group("web")      // on every node
//
// # Promises
//
// A write that was answered without an error is on disk on a majority. One
// that was answered with [ErrNotLeader] or [ErrBusy] took no effect; one with
// [ErrOutcomeUnknown] may have or not: retry the same command.
//
// A lease that was renewed with an answer is not expired before the renewal's
// arrival plus its TTL, whoever leads then: the answer is given only after a
// quorum confirmed, later than the arrival, that the term still stands, and a
// newer leader starts by giving every lease its full TTL.
//
// # Not promised
//
// A store does not forward. Callers send writes, renewals and read indexes to
// the leader, which [Store.Leader] names.
package store
