package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/rpc/certs"
)

// Ports has the metrics of the ports' TLS. A port is named by its flag: addr or bind.
type Ports struct {
	// Refused counts the client port's connections without a successful handshake.
	Refused prometheus.Counter

	plain *prometheus.GaugeVec
	files []certFiles
}

// certFiles are a source's files, by the flags that name them.
type certFiles struct {
	source   *certs.Source
	cert, ca string
}

var (
	certExpiry   = prometheus.NewDesc("registry_certificate_expiry_timestamp_seconds", "When the first certificate in a file expires, in Unix time, by the flag that names the file.", []string{"file"}, nil)
	certFailures = prometheus.NewDesc("registry_certificate_reload_failures_total", "Changes of certificate files that could not be used; the files before stay in use.", nil, nil)
)

func newPorts() *Ports {
	p := &Ports{
		plain: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "registry_port_plain", Help: "1 if the port has no TLS and listens on more than loopback.",
		}, []string{"port"}),
		Refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "registry_tls_refused_total", Help: "Connections to the client port that were closed because their TLS handshake failed, or because they had no TLS.",
		}),
	}
	for _, port := range []string{"addr", "bind"} {
		p.SetPlain(port, false)
	}
	return p
}

// SetPlain says whether a port is open without TLS.
func (p *Ports) SetPlain(port string, open bool) { p.plain.WithLabelValues(port).Set(boolValue(open)) }

// Certificates adds the files of a source, named by their flags, before Register.
func (p *Ports) Certificates(source *certs.Source, cert, ca string) {
	p.files = append(p.files, certFiles{source, cert, ca})
}

func (p *Ports) collectors() []prometheus.Collector {
	return []prometheus.Collector{p, p.plain, p.Refused}
}

// Describe implements prometheus.Collector.
func (p *Ports) Describe(out chan<- *prometheus.Desc) {
	out <- certExpiry
	out <- certFailures
}

// Collect implements prometheus.Collector.
func (p *Ports) Collect(out chan<- prometheus.Metric) {
	failures := uint64(0)
	for _, f := range p.files {
		failures += f.source.Failures()
		cert, ca := f.source.Set().NotAfter()
		if !cert.IsZero() {
			out <- prometheus.MustNewConstMetric(certExpiry, prometheus.GaugeValue, float64(cert.Unix()), f.cert)
		}
		if !ca.IsZero() {
			out <- prometheus.MustNewConstMetric(certExpiry, prometheus.GaugeValue, float64(ca.Unix()), f.ca)
		}
	}
	out <- prometheus.MustNewConstMetric(certFailures, prometheus.CounterValue, float64(failures))
}
