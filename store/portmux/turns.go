package portmux

import "runtime"

// turns bound how many TLS handshakes compute at a time, so that unauthenticated
// callers who connect repeatedly leave processors to the calls on open connections. A handshake has
// no turn while it waits for its caller, so a slow one delays no other.
//
// Example: with one turn, 1,000 callers that connect at once are answered one after
// the other, at about 0.5 ms each, and a call on an open connection is answered as
// if half the machine were busy.
type turns chan struct{}

// newTurns gives half the processors to handshakes, and at least one.
func newTurns() turns { return make(turns, max(runtime.GOMAXPROCS(0)/2, 1)) }

// begin waits for a turn. Those that have one wait for nobody.
func (t turns) begin() { t <- struct{}{} }

func (t turns) end() { <-t }
