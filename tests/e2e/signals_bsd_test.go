//go:build unix && !linux

package e2e

import (
	"os/exec"
	"syscall"
)

func dieWithParent(*syscall.SysProcAttr) {} // not available

func newPIDs(*exec.Cmd) {} // not available
