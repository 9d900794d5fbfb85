// Package lease holds the deadlines of leases on the leader, and guards groups
// against the loss of many members at once.
//
// The replicated state has a lease's id, epoch and TTL, never a deadline: a
// [Table] keeps the deadlines on the leader's monotonic clock and follows the
// state machine as an fsm.Observer. A new leader gives every lease its full TTL.
//
//	table := lease.New(logger)
//	machine := fsm.New(table)
//	table.Lead(machine)              // this node leads
//	lost := table.Renew(ids)         // a heartbeat
//	due, next := table.Due(1000)     // to be expired through the log, fenced by the term
//
// An expiry is decided here and takes effect in the state machine, which ignores
// it if the lease was registered again meanwhile.
package lease
