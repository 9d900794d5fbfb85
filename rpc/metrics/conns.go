package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/store/portmux"
)

// Conns has the connections of the ports, which are counted at a scrape.
type Conns struct {
	ports map[Port]func() portmux.Stats
}

var (
	connections     = prometheus.NewDesc("registry_connections", "Open connections, by port.", []string{"port"}, nil)
	connsPending    = prometheus.NewDesc("registry_connections_pending", "Connections whose protocol is not known yet, or whose TLS handshake runs, by port.", []string{"port"}, nil)
	connectionsShut = prometheus.NewDesc("registry_connections_closed_total", "Connections that were closed at the limit of the port (limit) or of their source (source_limit), or because their first bytes or TLS handshake took too long (late), by port and reason.", []string{"port", "reason"}, nil)
)

// Add adds a port, before Register.
func (c *Conns) Add(port Port, stats func() portmux.Stats) { c.ports[port] = stats }

// Describe implements prometheus.Collector.
func (c *Conns) Describe(out chan<- *prometheus.Desc) {
	out <- connections
	out <- connsPending
	out <- connectionsShut
}

// Collect implements prometheus.Collector.
func (c *Conns) Collect(out chan<- prometheus.Metric) {
	for port, stats := range c.ports {
		s := stats()
		out <- prometheus.MustNewConstMetric(connections, prometheus.GaugeValue, float64(s.Connections), string(port))
		out <- prometheus.MustNewConstMetric(connsPending, prometheus.GaugeValue, float64(s.Pending), string(port))
		for reason, n := range map[string]uint64{"limit": s.Full, "source_limit": s.Crowded, "late": s.Late} {
			out <- prometheus.MustNewConstMetric(connectionsShut, prometheus.CounterValue, float64(n), string(port), reason)
		}
	}
}
