package metrics

import "github.com/prometheus/client_golang/prometheus"

// Audit counts what the audit log lacks.
type Audit struct {
	// Failed counts the lines that could not be written.
	Failed prometheus.Counter
	// Dropped counts the lines beyond the limits.
	Dropped prometheus.Counter
}

func newAudit() *Audit {
	return &Audit{
		Failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "registry_audit_failures_total", Help: "Lines of the audit log that could not be written, and failures to open its file again.",
		}),
		Dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "registry_audit_dropped_total", Help: "Lines about failed calls that the audit log left out, because their source or all sources had too many.",
		}),
	}
}

func (a *Audit) collectors() []prometheus.Collector {
	return []prometheus.Collector{a.Failed, a.Dropped}
}
