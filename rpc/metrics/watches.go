package metrics

import "github.com/prometheus/client_golang/prometheus"

// Watches counts the events of watchers. The number of watchers is that of the method's
// open streams.
type Watches struct {
	// Events that were sent.
	Events prometheus.Counter
	// Behind counts the times that a watcher got several changes at once, because it had
	// not taken the first before the next was applied.
	Behind prometheus.Counter
	// Resets counts the times that a watcher started over with a snapshot because its
	// position was not in the history.
	Resets prometheus.Counter
}

func newWatches() *Watches {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &Watches{
		Events: counter("registry_watch_events_total", "Events sent to watchers."),
		Behind: counter("registry_watch_behind_total", "Times that a watcher got several changes at once because it was behind."),
		Resets: counter("registry_watch_resets_total", "Times that a watcher had to start over with a snapshot."),
	}
}

func (w *Watches) collectors() []prometheus.Collector {
	return []prometheus.Collector{w.Events, w.Behind, w.Resets}
}

// Step counts a step of a watcher of one group: a number of changes, or a snapshot,
// which is a reset unless the watcher had no position.
func (w *Watches) Step(changes int, snapshot, initial bool) {
	switch {
	case snapshot && !initial:
		w.Resets.Inc()
	case changes > 1:
		w.Behind.Inc()
	}
}
