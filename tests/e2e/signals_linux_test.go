package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends a process also when the tests end without a cleanup, by
// -timeout for instance.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// newPIDs makes the command process 1 of a PID namespace.
func newPIDs(cmd *exec.Cmd) { cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID }
