// Compare measures calls of the registry beside those of etcd that serve the same end:
// a registration and a put of the same size, a heartbeat of one lease and a keep-alive,
// a match of one key and a serializable get, a linearizable match and a linearizable
// get.
//
//	go -C tests run ./compare
//
// Each system is three processes with default settings on fresh data on this machine,
// one system at a time; this program is the load of both, with as many connections. The
// rounds alternate, and so does who begins. The table has the medians over the rounds,
// the ratio of those of the calls a second, and the ratios of the single rounds.
// etcd is its newest release, built from the module tests/etcd.
//
// A put has no lease, which a registration has: etcd would need two calls.
package main
