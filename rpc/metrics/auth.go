package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/rpc/auth"
)

// Auth counts calls without a valid token.
type Auth struct{ failures *prometheus.CounterVec }

func newAuth() *Auth {
	a := &Auth{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "registry_auth_failures_total", Help: "Calls that were refused because they had no valid token, by port and reason.",
	}, []string{"port", "reason"})}
	for _, port := range []Port{ClientPort, NodePort} {
		for _, why := range auth.Reasons {
			a.failures.WithLabelValues(string(port), string(why))
		}
	}
	return a
}

// Failed counts a call.
func (a *Auth) Failed(port Port, why auth.Reason) {
	a.failures.WithLabelValues(string(port), string(why)).Inc()
}
