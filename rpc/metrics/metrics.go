package metrics

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/portmux"
)

// Node has the metrics of one node. It is made before the node's store, which reports
// durations to it, and registered when the store is open.
type Node struct {
	applied   prometheus.Histogram
	entries   prometheus.Counter
	written   *prometheus.HistogramVec
	confirmed *prometheus.HistogramVec
	snapshots *prometheus.HistogramVec
	snapBytes prometheus.Gauge
	restored  *prometheus.HistogramVec

	// Calls counts the calls of clients and nodes.
	Calls *Calls
	// Watches counts the events that watchers get.
	Watches *Watches
	// Peers counts what TLS between the nodes refuses.
	Peers *Peers
	// Ports has what there is to say of the ports' TLS.
	Ports *Ports
	// Auth counts calls without a valid token.
	Auth *Auth
	// Conns has the ports' connections.
	Conns *Conns
	// Audit counts what the audit log lacks.
	Audit *Audit

	registered []prometheus.Collector
	registerer prometheus.Registerer
}

// Buckets in seconds: for work of microseconds, and for work that waits for disks or
// other nodes.
var (
	shortBuckets = []float64{1e-5, 2.5e-5, 1e-4, 2.5e-4, 1e-3, 2.5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 2.5}
	callBuckets  = []float64{1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
)

// New returns metrics that are not registered.
func New() *Node {
	outcome := []string{"outcome"}
	return &Node{
		applied: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "registry_fsm_apply_seconds", Help: "Time the state machine took for one batch of log entries.", Buckets: shortBuckets,
		}),
		entries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "registry_fsm_applied_entries_total", Help: "Log entries given to the state machine.",
		}),
		written: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "registry_write_seconds", Help: "Time from the proposal of an entry by this leader to its answer, by outcome.", Buckets: callBuckets,
		}, outcome),
		confirmed: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "registry_leadership_check_seconds", Help: "Time of one leadership check, which may serve many heartbeats and reads.", Buckets: callBuckets,
		}, outcome),
		snapshots: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "registry_snapshot_seconds", Help: "Time that writing a snapshot took.", Buckets: callBuckets,
		}, outcome),
		snapBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "registry_snapshot_size_bytes", Help: "Size of the last snapshot that this process wrote.",
		}),
		restored: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "registry_restore_seconds", Help: "Time that restoring a snapshot took.", Buckets: callBuckets,
		}, outcome),
		Calls:   newCalls(),
		Watches: newWatches(),
		Peers:   newPeers(),
		Ports:   newPorts(),
		Auth:    newAuth(),
		Conns:   &Conns{ports: make(map[Port]func() portmux.Stats)},
		Audit:   newAudit(),
	}
}

// Instruments are the store's hooks.
func (n *Node) Instruments() store.Instruments {
	snapshot := observer(n.snapshots, failed)
	return store.Instruments{
		Applied: func(entries int, took time.Duration) {
			n.applied.Observe(took.Seconds())
			n.entries.Add(float64(entries))
		},
		Written:   observer(n.written, writeOutcome),
		Confirmed: observer(n.confirmed, failed),
		Snapshot: func(bytes int64, took time.Duration, err error) {
			snapshot(took, err)
			if err == nil {
				n.snapBytes.Set(float64(bytes))
			}
		},
		Restored: observer(n.restored, failed),
	}
}

// Values of the label outcome.
const (
	outcomeOK      = "ok"
	outcomeRefused = "refused" // the state machine returned an error: no effect
	outcomeUnknown = "unknown" // it may have an effect
	outcomeFailed  = "failed"  // no effect
)

func writeOutcome(err error) string {
	switch {
	case errors.Is(err, store.ErrOutcomeUnknown):
		return outcomeUnknown
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrStorage):
		return outcomeFailed
	}
	return outcomeRefused
}

func failed(error) string { return outcomeFailed }

// observer observes by outcome, without a look-up if there is no error.
func observer(h *prometheus.HistogramVec, not func(error) string) func(time.Duration, error) {
	ok := h.WithLabelValues(outcomeOK)
	return func(took time.Duration, err error) {
		if err == nil {
			ok.Observe(took.Seconds())
			return
		}
		h.WithLabelValues(not(err)).Observe(took.Seconds())
	}
}

// Register registers the metrics of an open store, until Close. A registerer takes one
// node: for several, give each its own label (prometheus.WrapRegistererWith).
func (n *Node) Register(to prometheus.Registerer, s *store.Store) error {
	n.registerer = to
	all := append([]prometheus.Collector{
		newStoreCollector(s), n.applied, n.entries, n.written, n.confirmed, n.snapshots, n.snapBytes, n.restored,
	}, n.Calls.collectors()...)
	all = append(all, n.Watches.collectors()...)
	all = append(all, n.Peers.collectors()...)
	all = append(all, n.Ports.collectors()...)
	all = append(all, n.Conns, n.Auth.failures)
	all = append(all, n.Audit.collectors()...)
	for _, c := range all {
		if err := to.Register(c); err != nil {
			n.Close()
			return fmt.Errorf("register metrics: %w", err)
		}
		n.registered = append(n.registered, c)
	}
	return nil
}

// Close unregisters the metrics.
func (n *Node) Close() {
	for _, c := range n.registered {
		n.registerer.Unregister(c)
	}
	n.registered = nil
}

// Describe sends the descriptions of all metrics.
func (n *Node) Describe(out chan<- *prometheus.Desc) {
	for _, c := range n.registered {
		c.Describe(out)
	}
}
