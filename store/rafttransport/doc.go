// Package rafttransport extends hashicorp/raft's network transport: a handshake by
// cluster id on each connection, checks of each message before it reaches raft,
// heartbeats answered outside raft's main loop, entries sent while the leader writes
// them, commits announced at once, and entries sent at once to a node that was away.
//
//	streams := rafttransport.NewStreams(rafttransport.StreamsConfig{…})
//	t := rafttransport.New(rafttransport.Config{Streams: streams, …})
//	r, err := raft.NewRaft(config, fsm, log, stable, snapshots, t)
//	t.Attach(r, log)
//
// It detects accidents: a peer whose messages would make raft panic, or that belongs
// to another cluster. It does not authenticate: that is for the TLS of the port, without
// which an attacker can send valid messages.
package rafttransport
