// Package metrics has the Prometheus metrics of one node. Nothing is global: each of
// several nodes in one process has its own.
//
//	m := metrics.New()
//	node, err := store.Open(store.Config{Instruments: m.Instruments(), ...})
//	err = m.Register(prometheus.NewRegistry(), node)
//	defer m.Close()
//
// Hot paths update a counter and a histogram each; all else is read from the node at a
// scrape. Labels have fixed values, with one exception: the groups in which the
// mass-loss guard acts, at most [MaxGroups].
//
// raft v1.8.0 reports its own metrics to a global of the process, which has no sink
// here. The metrics of raft in this package are read from raft.
package metrics
