// Package check judges what clients saw of a cluster while faults were
// injected. It does no I/O and reads no clock: every time in it is the time
// since the start of a run, on the observer's own monotonic clock.
//
//	Linearizable   writes and linearizable reads have one order that explains all
//	Ledger         acknowledged registrations are there, deregistered ones are not
//	Leases         no lease ends early, and none lives on for ever
//	Watcher        a watch has no gap and never goes back
//	Views          one (group, revision) is one ring and one set of members
//	Digests        one applied index is one state
//	Session        a client that says what it has seen never goes back
//
// Each has a test with histories that it must refuse.
package check

import "fmt"

// Violation is a promise that was not kept.
type Violation struct {
	Checker string `json:"checker"`
	Text    string `json:"text"`
	// Unshown: nothing went wrong, but the run did not show what it was for,
	// because the machine kept the clients from it.
	Unshown bool `json:"unshown,omitempty"`
}

func (v Violation) String() string { return v.Checker + ": " + v.Text }

func violation(checker, format string, args ...any) Violation {
	return Violation{Checker: checker, Text: fmt.Sprintf(format, args...)}
}
