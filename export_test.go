package registry

import (
	"regexp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc"
)

// SetLimits makes messages smaller than they may be, so that a test needs few members.
func (c *Config) SetLimits(l rpc.Limits) { c.limits = l }

// Machine is the node's state machine, for tests that damage it.
func (n *Node) Machine() *fsm.Machine { return n.store.Machine() }

var descName = regexp.MustCompile(`fqName: "([^"]+)"`)

// MetricNames are those of all metrics that the node exports, also of those
// that have no sample yet, in order.
func (n *Node) MetricNames() (names []string) {
	descs := make(chan *prometheus.Desc)
	go func() { defer close(descs); n.metrics.Describe(descs) }()
	for d := range descs {
		names = append(names, descName.FindStringSubmatch(d.String())[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}
