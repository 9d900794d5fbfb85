//go:build !unix

package main

import "os"

// passedOn is empty where processes have no signals to speak of.
var passedOn []os.Signal

func signalNumber(*os.ProcessState) int { return 0 }
