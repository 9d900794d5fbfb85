//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"syscall"
)

var (
	sigInt  os.Signal = syscall.SIGINT
	sigTerm os.Signal = syscall.SIGTERM
	sigHup  os.Signal = syscall.SIGHUP
	sigStop os.Signal = syscall.SIGSTOP
	sigCont os.Signal = syscall.SIGCONT
)

// killGroup ends a process and what it started.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) } // it fails when all have ended

// ownGroup puts a command into a process group of its own.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
}
