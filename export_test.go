package registry

import (
	"regexp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/fsm"
)

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
