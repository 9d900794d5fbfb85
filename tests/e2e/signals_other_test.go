//go:build !unix

package e2e

import (
	"os"
	"os/exec"
)

// No signal but the kill: tests that need one are skipped.
var sigInt, sigTerm, sigHup, sigStop, sigCont os.Signal

func killGroup(p *os.Process) { _ = p.Kill() }

func ownGroup(*exec.Cmd) {}

func newPIDs(*exec.Cmd) {} // not available
