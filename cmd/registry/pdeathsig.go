//go:build linux || freebsd

package main

import "syscall"

// endWithParent ends the command when this process is killed: nobody keeps its
// service registered then. It reaches the command alone, not what that started.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
