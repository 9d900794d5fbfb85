// Package raftlog stores a node's raft log, term, vote and snapshots on disk, and
// detects corruption and lost writes.
//
// The log is in segments (hashicorp/raft-wal) or in raft.db (raft-boltdb); term and
// vote are always in raft.db. Every entry, term and vote has a checksum. The file
// raft.tail records the last entry and vote, so that a log that was truncated or
// replaced by an older copy is detected. The pages of raft.db and the last segment
// are verified before use. A write that fails or hangs ends the node (see [Watchdog]).
//
//	files, err := raftlog.Lock(dir)                 // one process a directory
//	err = files.Open(raftlog.WAL, logger, 0)
//	snapshots, err := raftlog.OpenSnapshots(dir, logger)
//	from, last, err := files.Verify()               // before raft builds on it
//	logs, stable, err := files.Guard(raftlog.GuardConfig{…})
//
// It detects accidents, not forgery, and not an older copy of the whole directory.
package raftlog
