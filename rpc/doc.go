// Package rpc is the registry's face: the public gRPC API and health on the
// client port, and what nodes ask each other on the bind port.
//
// Reads are answered from this node's state. Writes and heartbeats go to the
// leader in one hop: a node that does not lead sends the same call to the
// leader's bind port, marked, and a marked call is never sent on.
//
// Every error carries a gRPC code and a registrypb.ErrorDetail; clients decide
// by the detail's reason.
package rpc
