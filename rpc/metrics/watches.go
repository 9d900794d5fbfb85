package metrics

import "github.com/prometheus/client_golang/prometheus"

// Watches counts what watchers are sent. The number of open watches is that of
// the method's open streams.
type Watches struct {
	// Events that were sent.
	Events prometheus.Counter
	// Behind counts the times that a watcher was sent several steps at once
	// because it had not taken the first when the next came.
	Behind prometheus.Counter
	// Resets counts the times that a watcher was started over with a snapshot
	// because no known steps led from where it was.
	Resets prometheus.Counter
}

func newWatches() *Watches {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &Watches{
		Events: counter("registry_watch_events_total", "Events sent to watchers."),
		Behind: counter("registry_watch_behind_total", "Times that a watcher was sent several steps at once because it was behind."),
		Resets: counter("registry_watch_resets_total", "Times that a watcher had to start over with a snapshot."),
	}
}

func (w *Watches) collectors() []prometheus.Collector {
	return []prometheus.Collector{w.Events, w.Behind, w.Resets}
}

// Step notes what a watcher of one group is sent: how many changes, or the
// whole group, which is a reset unless the watcher begins anew.
func (w *Watches) Step(changes int, whole, anew bool) {
	switch {
	case whole && !anew:
		w.Resets.Inc()
	case changes > 1:
		w.Behind.Inc()
	}
}
