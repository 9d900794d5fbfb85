// Command failover measures how long a cluster of three goes without an
// acknowledged write when its leader is killed, for the registry and for etcd
// side by side.
//
// Both clusters run on loopback with their defaults, data on disk. A round kills
// the leader of one with SIGKILL and takes the time to the next acknowledged
// write of a client that knows all members; then the member starts again and the
// cluster settles. Rounds alternate between the two. The registry's client is
// package sdk. etcd's, over the JSON gateway, sends a new put to every surviving
// member each 10 ms until one is acknowledged, over connections that are open:
// no client could see etcd's answer earlier. etcd is the release of the module
// tests/etcd; where it cannot be built the registry is measured alone, and says so.
//
//	go -C tests run ./failover -rounds 30
package main
