package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/rpc/peertls"
)

// Peers counts what TLS between the nodes refuses.
type Peers struct {
	refused *prometheus.CounterVec
	// Unusable counts the files that could not be used.
	Unusable prometheus.Counter
}

func newPeers() *Peers {
	p := &Peers{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "registry_peer_refused_total", Help: "Connections to the bind port, and from this node to others, that were refused, by reason.",
		}, []string{"reason"}),
		Unusable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "registry_peer_files_unusable_total", Help: "Times that a changed secret or certificate file for the bind port could not be used.",
		}),
	}
	for _, why := range peertls.Reasons {
		p.refused.WithLabelValues(string(why))
	}
	return p
}

func (p *Peers) collectors() []prometheus.Collector {
	return []prometheus.Collector{p.refused, p.Unusable}
}

// Refused counts a refused connection.
func (p *Peers) Refused(why peertls.Reason) { p.refused.WithLabelValues(string(why)).Inc() }
