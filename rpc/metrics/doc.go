// Package metrics makes Prometheus metrics of one node. Nothing of it is
// global: several nodes in one process have metrics of their own.
//
//	m := metrics.New()
//	node, err := store.Open(store.Config{Instruments: m.Instruments(), ...})
//	err = m.Register(prometheus.NewRegistry(), node)
//	defer m.Close()
//
// Hot paths pay for a counter and a histogram each; everything else is read
// from the node when it is scraped. Labels have fixed values, with one exception:
// the groups in which the mass-loss guard acts, at most [MaxGroups].
//
// raft's own metrics are not among them: raft v1.8.0 reports to a global of
// its process, which is left silent. What is published here is read from raft.
package metrics
