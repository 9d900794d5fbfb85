//go:build unix && !linux && !freebsd

package main

import "syscall"

func endWithParent(*syscall.SysProcAttr) {} // not available
