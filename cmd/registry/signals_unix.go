//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// passedOn are the signals that only concern the command of "register -- CMD".
var passedOn = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// signalNumber returns the number of the signal that ended a process, or 0.
func signalNumber(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return int(w.Signal())
	}
	return 0
}

// childAttr puts a command into a process group of its own, and ends it when we
// are killed, where the system can.
func childAttr(ownGroup bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: ownGroup}
	endWithParent(attr)
	return attr
}

// signalGroup sends a signal to all of the group that pid began.
func signalGroup(pid int, s syscall.Signal) {
	_ = syscall.Kill(-pid, s) // it fails if all have ended
}

// groupEnded tells whether nobody is left of the group that pid began.
func groupEnded(pid int) bool {
	if os.Getpid() == 1 {
		for { // a zombie counts as a member
			if n, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); n <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
	}
	return errors.Is(syscall.Kill(-pid, 0), syscall.ESRCH)
}

// waitAsInit waits for the command as the first process of a container, which
// inherits all orphans: it reaps those too.
func waitAsInit(pid int) error {
	for {
		var status syscall.WaitStatus
		n, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR) || err == nil && n != pid:
		case err != nil:
			return fmt.Errorf("wait for the command: %w", err)
		case status.Signaled():
			return &exitError{code: 128 + int(status.Signal())}
		case status.ExitStatus() != 0:
			return &exitError{code: status.ExitStatus()}
		default:
			return nil
		}
	}
}
