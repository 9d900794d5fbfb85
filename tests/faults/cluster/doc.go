// Package cluster runs real registry processes and the network between them.
//
// Where it may, every node gets a network namespace of its own. Its one
// interface is a TUN device whose other end this process holds: it is the
// switch, and so any direction of any link can be cut, made lossy or slow, on
// every kernel and without tc or iptables. Namespaces and devices have no
// names and belong to threads and files of this process: whatever ends it,
// even SIGKILL, ends them too, and the nodes with them.
//
// Where it may not, nodes listen on addresses of 127.0.0.0/8, and [Network]
// has no faults to offer.
package cluster
