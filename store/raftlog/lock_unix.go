//go:build linux || darwin || freebsd

package raftlog

import (
	"errors"
	"os"
	"syscall"
)

// tryLockShared takes bbolt's lock, shared; false if another process has it.
func tryLockShared(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
