// Package lease keeps the deadlines of leases on the leader, and delays expiry when
// many members of a group are silent at once (the mass-loss guard).
//
// The replicated state has a lease's id, epoch and TTL, never a deadline. A [Table]
// keeps the deadlines on the leader's monotonic clock and follows the state machine as
// an fsm.Observer. A new leader gives every lease its full TTL.
//
//	table := lease.New(logger)
//	machine := fsm.New(table)
//	table.Lead(machine)                // this node leads
//	lost, err := table.Renew(ids, nil) // a heartbeat
//	due, next := table.Due(1000)       // to expire through the log, fenced by the term
//
// An expiry is decided here and takes effect in the state machine, which ignores it if
// the member registered again meanwhile.
package lease
