// Package store is one node of the cluster: hashicorp/raft with a log and
// snapshots on disk, the leader's work (leases, expiry, promotion of joined nodes),
// reads with a stated staleness, and cluster membership.
//
//	s, err := store.Open(store.Config{
//		ID: "n1", Cluster: "main", DataDir: dir, BindAdvertise: "10.0.0.1:7370", Addr: "10.0.0.1:9800",
//		Listener: listener, DialRaft: peers.DialRaft, Peers: peers,
//	})
//	defer s.Close()
//	err = s.Form(ctx, store.Formation{}) // a new cluster of one node, or the one that it belongs to
//	<-s.Ready()
//	result, err := s.Write(ctx, command) // on the leader
//	group := s.State().Group("web")      // on every node
//
// # Promises
//
// A write that returned no error is on disk on a majority. One that returned
// [ErrNotLeader] or [ErrBusy] took no effect. One that returned
// [ErrOutcomeUnknown] may or may not have taken effect: retry the same command.
//
// A lease whose renewal was acknowledged does not expire before the arrival of
// the renewal plus the TTL, even if the leader changes: the acknowledgement waits
// until a quorum has confirmed the term after the arrival, and a new leader gives
// every lease its full TTL.
//
// # Not promised
//
// A store does not forward. Callers send writes, renewals and read indexes to
// the leader, which [Store.Leader] names.
package store
