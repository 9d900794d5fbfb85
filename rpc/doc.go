// Package rpc serves the registry's API: the public gRPC calls, HTTP and health
// on the client port, and what nodes ask each other on the bind port. Package
// registry puts it together with a store; clients use package sdk.
//
//	peers := rpc.NewPeers()
//	node, err := store.Open(store.Config{Peers: peers, DialRaft: rpc.DialRaft, ...})
//	server := rpc.New(rpc.Config{Store: node, Peers: peers, Logger: logger})
//	defer server.Close()
//	server.ServeNodes(nodesListener) // both serve until Close
//	server.ServeClients(grpcListener, httpListener)
//
// Reads are answered from this node's state. Writes and heartbeats go to the
// leader in one hop: a node that does not lead sends the same call to the
// leader's bind port, marked, and a marked call is never sent on.
//
// Every error carries a gRPC code and a registrypb.ErrorDetail; clients decide
// by the detail's reason.
package rpc
