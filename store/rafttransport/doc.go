// Package rafttransport is hashicorp/raft's network transport with what a cluster
// needs beside it: a handshake by cluster id on each connection, checks of each
// message before raft sees it, heartbeats answered beside raft's main loop, and
// notices of a commit as soon as it is one.
//
//	streams := rafttransport.NewStreams(rafttransport.StreamsConfig{…})
//	t := rafttransport.New(rafttransport.Config{Streams: streams, …})
//	r, err := raft.NewRaft(config, fsm, log, stable, snapshots, t)
//	t.Attach(r, log)
//
// It finds accidents: a peer that sends what raft would panic on, or that belongs
// to another cluster. It does not authenticate: who means harm can send messages
// that are well-formed.
package rafttransport
