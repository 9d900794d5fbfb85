// Package rpc serves the registry's API: the public gRPC calls, HTTP and health
// on the client port, and the calls between nodes on the bind port. Package
// registry puts it together with a store; clients use package sdk.
//
//	peers := rpc.NewPeers(nil)
//	node, err := store.Open(store.Config{Peers: peers, DialRaft: peers.DialRaft, ...})
//	server := rpc.New(rpc.Config{Store: node, Peers: peers, Logger: logger})
//	defer server.Close()
//	server.ServeNodes(nodesListener) // both serve until Close
//	server.ServeClients(grpcListener, httpListener)
//
// Reads are answered from this node's state. Writes and heartbeats go to the
// leader in one hop: a follower forwards the call to the leader's bind port with a
// mark, and a marked call is never forwarded again.
//
// Every error has a gRPC code and a registrypb.ErrorDetail; clients decide by the
// detail's reason.
package rpc
