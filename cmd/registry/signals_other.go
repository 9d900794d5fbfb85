//go:build !unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// passedOn is empty where processes have no signals to speak of.
var passedOn []os.Signal

func signalNumber(*os.ProcessState) int { return 0 }

func childAttr(bool) *syscall.SysProcAttr { return nil }

// signalGroup ends the process alone: there are no groups.
func signalGroup(pid int, _ syscall.Signal) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // it fails if the process has ended
	}
}

func groupEnded(int) bool { return true }

func waitAsInit(int) error { return errors.New("no process is the first one here") }
