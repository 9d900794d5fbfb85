//go:build unix

package main

import (
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
