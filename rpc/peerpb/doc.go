// Package peerpb is what nodes ask each other on the bind port, generated from
// peer.proto. Clients have no use for it: see package registrypb.
//
//	hello, err := peerpb.NewPeerClient(conn).Hello(ctx, &peerpb.HelloRequest{})
package peerpb
