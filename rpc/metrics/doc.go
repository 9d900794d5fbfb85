// Package metrics makes Prometheus metrics of one node. Nothing of it is
// global: several nodes in one process have metrics of their own.
//
// Hot paths pay for a counter and a histogram each; everything else is read
// from the node when it is scraped. No label takes a value that clients choose,
// but for the groups in which the mass-loss guard acts, at most [MaxGroups].
//
// raft's own metrics are not among them: raft v1.8.0 reports to a global of
// its process, which is left silent. What is published here is read from raft.
package metrics
