package registry

import (
	"net"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/store/portmux"
)

// SetLimits makes messages smaller than they may be, so that a test needs few members.
func (c *Config) SetLimits(l rpc.Limits) { c.limits = l }

// Machine is the node's state machine, for tests that damage it.
func (n *Node) Machine() *fsm.Machine { return n.store.Machine() }

// ServeLost serves a port whose listener is closed.
func (n *Node) ServeLost(ln net.Listener) { n.serveMux("-addr", portmux.New(ln, 1)) }

// The limits of connections are for the reference.
const (
	MaxClientConns = maxClientConns
	MaxNodeConns   = maxNodeConns
	SourceShare    = sourceShare
)

// MetricDescs describe all metrics that the node exports, also those that have
// no sample yet, in the order of their names.
func (n *Node) MetricDescs() (all []string) {
	descs := make(chan *prometheus.Desc)
	go func() { defer close(descs); n.metrics.Describe(descs) }()
	for d := range descs {
		all = append(all, d.String())
	}
	slices.Sort(all)
	return all
}
