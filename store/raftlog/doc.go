// Package raftlog keeps a node's raft log, term, vote and snapshots on the disk,
// and finds what is not as it was written.
//
// The log is in segments (hashicorp/raft-wal) or in raft.db (raft-boltdb); term
// and vote are always in raft.db. Every entry, term and vote has a checksum; the
// file raft.tail remembers how far the log reached and who was voted for, so that
// a log that was cut off or set back is found; the pages of raft.db and the last
// segment are checked before they are used. A write that fails or hangs ends the
// node (see [Watchdog]).
//
//	files, err := raftlog.Lock(dir)                 // one process a directory
//	err = files.Open(raftlog.WAL, logger, 0)
//	snapshots, err := raftlog.OpenSnapshots(dir, logger)
//	from, last, err := files.Verify()               // before raft builds on it
//	logs, stable, err := files.Guard(raftlog.GuardConfig{…})
//
// It finds accidents, not forgery, and not the loss of a whole directory.
package raftlog
