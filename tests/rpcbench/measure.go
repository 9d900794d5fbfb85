package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/werbenhu/registry/tests/systems"
)

const nodes = systems.Nodes

// patience is how long an event may take before the run is given up.
const patience = 20 * time.Second

// result has the latencies of one side at one size, of all nodes' watchers.
type result struct {
	side             string
	fromCall, fromOK []time.Duration
	byNode           [nodes][]time.Duration // from the call's return
	processor        float64                // share of one that this process took, changes and all
}

// sighting is one watcher's sight of one name.
type sighting struct {
	node int
	name string
	at   time.Time
}

// measured is a side whose watches stand.
type measured struct {
	side
	result
	sightings  chan sighting
	next       int
	busy, took time.Duration
}

// measure runs both sides in blocks, one after the other.
func measure(ctx context.Context, c config, sides []side, size int) ([]result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running []*measured
	for _, s := range sides {
		if err := s.fill(ctx, size); err != nil {
			return nil, fmt.Errorf("%s: fill: %w", s.name(), err)
		}
		m := &measured{side: s, result: result{side: s.name()}, sightings: make(chan sighting, 1024)}
		err := s.watch(ctx, size, func(node int, name string) {
			select {
			case m.sightings <- sighting{node, name, time.Now()}:
			case <-ctx.Done():
			}
		})
		if err != nil {
			return nil, fmt.Errorf("%s: watch: %w", s.name(), err)
		}
		running = append(running, m)
	}
	for done := 0; done < c.changes; done += c.block {
		for _, m := range running {
			began, before := time.Now(), processorTime()
			for range min(c.block, c.changes-done) {
				due := time.Now().Add(time.Duration(float64(time.Second) / c.rate))
				if err := m.change(ctx, size); err != nil {
					return nil, fmt.Errorf("%s: %w", m.name(), err)
				}
				if err := pace(ctx, due); err != nil {
					return nil, err
				}
			}
			m.busy += processorTime() - before
			m.took += time.Since(began)
		}
	}
	var results []result
	for _, m := range running {
		m.processor = m.busy.Seconds() / m.took.Seconds()
		results = append(results, m.result)
	}
	return results, nil
}

// change makes one change and waits until all watchers have seen it.
func (m *measured) change(ctx context.Context, size int) error {
	via := m.next % nodes
	name := changeName(m.next)
	m.next++
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("a watcher saw nothing"))
	defer cancel()
	began := time.Now()
	err := m.put(ctx, size, via, name)
	returned := time.Now()
	if err != nil {
		return fmt.Errorf("put: %w", err)
	}
	for seen := 0; seen < m.watchers(); {
		select {
		case s := <-m.sightings:
			if s.name != name {
				continue
			}
			seen++
			m.fromCall = append(m.fromCall, s.at.Sub(began))
			m.fromOK = append(m.fromOK, s.at.Sub(returned))
			m.byNode[s.node] = append(m.byNode[s.node], s.at.Sub(returned))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := m.remove(ctx, size, via, name); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

func changeName(n int) string { return fmt.Sprintf("new-%08d", n) }

// at is a quantile of the durations.
func at(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(q*float64(len(sorted)-1))]
}

func mean(all []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return sum / time.Duration(len(all))
}

type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer) *table {
	t := &table{tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)}
	fmt.Fprintln(t.w, "\tafter the answer\t\t\tfrom the call\t\tworst node\t\t")
	fmt.Fprintln(t.w, "members\tmean ms\tp50\tp99\tp50\tp99\tp50\tp99\t")
	return t
}

func (t *table) rows(size int, results []result) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	for _, r := range results {
		var p50, p99 time.Duration
		for _, node := range r.byNode {
			if len(node) == 0 {
				continue
			}
			p50, p99 = max(p50, at(node, 0.5)), max(p99, at(node, 0.99))
		}
		fmt.Fprintf(t.w, "%s %d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", r.side, size,
			ms(mean(r.fromOK)), ms(at(r.fromOK, 0.5)), ms(at(r.fromOK, 0.99)), ms(at(r.fromCall, 0.5)), ms(at(r.fromCall, 0.99)), ms(p50), ms(p99))
	}
	if len(results) == 2 {
		a, b := results[0], results[1]
		fmt.Fprintf(t.w, "ratio %d\t%s\t%s\t%s\t%s\t%s\t\t\t\n", size, ratio(mean(a.fromOK), mean(b.fromOK)),
			ratio(at(a.fromOK, 0.5), at(b.fromOK, 0.5)), ratio(at(a.fromOK, 0.99), at(b.fromOK, 0.99)),
			ratio(at(a.fromCall, 0.5), at(b.fromCall, 0.5)), ratio(at(a.fromCall, 0.99), at(b.fromCall, 0.99)))
	}
}

// processor is the share of one processor that this process took while a side was
// measured, its calls and its watches.
func (t *table) processor(size int, results []result) {
	for _, r := range results {
		fmt.Fprintf(t.w, "%s %d: this process\t%.1f %%\t\t\t\t\t\t\t\n", r.side, size, 100*r.processor)
	}
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ratio is empty where an event came before the answer: there is none of times
// below zero, or of hardly any time at all.
func ratio(a, b time.Duration) string {
	if a < 10*time.Microsecond || b < 10*time.Microsecond {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

func (t *table) flush() error { return t.w.Flush() }

// group runs goroutines and keeps the first error.
type group struct {
	wg    sync.WaitGroup
	once  sync.Once
	first error
}

func (g *group) run(f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.once.Do(func() { g.first = err })
		}
	})
}

func (g *group) wait() error {
	g.wg.Wait()
	return g.first
}

// fillAll calls f for each number below n, 32 at a time.
func fillAll(ctx context.Context, n int, f func(i int) error) error {
	var g group
	for w := range 32 {
		g.run(func() error {
			for i := w; i < n; i += 32 {
				if err := f(i); err != nil {
					return err
				}
			}
			return context.Cause(ctx)
		})
	}
	return g.wait()
}
