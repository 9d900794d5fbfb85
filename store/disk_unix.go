//go:build linux || darwin || freebsd

package store

import (
	"fmt"
	"syscall"
)

// diskFree is the space for an unprivileged process on the disk of dir, in bytes.
func diskFree(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return uint64(max(st.Bavail, 0)) * uint64(st.Bsize), nil
}
