package registry

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc"
)

// SetLimits makes messages smaller than they may be, so that a test needs few members.
func (c *Config) SetLimits(l rpc.Limits) { c.limits = l }

// Machine is the node's state machine, for tests that damage it.
func (n *Node) Machine() *fsm.Machine { return n.store.Machine() }

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
