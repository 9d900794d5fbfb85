// Package systems starts the systems that are compared: three nodes of the registry and
// three members of etcd, each with default settings, on loopback.
package systems

import "errors"

// Nodes of each system.
const Nodes = 3

var errNoLeader = errors.New("no node leads")
