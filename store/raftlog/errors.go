package raftlog

import "errors"

// Errors of a log.
var (
	// ErrCorrupt: what is on disk is not what was written.
	ErrCorrupt = errors.New("stored data is damaged")
	// ErrStorage: a write failed or hung.
	ErrStorage = errors.New("storage failed")
	// ErrInUse: another process uses the directory.
	ErrInUse = errors.New("another process uses it")
)
