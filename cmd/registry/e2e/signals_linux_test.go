package e2e

import "syscall"

// dieWithParent ends a process also when the tests end without a cleanup, by
// -timeout for instance.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
