package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// results are the measurements of each load, of each system, in the order of the rounds.
type results map[string]map[string][]measurement

func (r results) add(load, who string, m measurement) {
	if r[load] == nil {
		r[load] = make(map[string][]measurement)
	}
	r[load][who] = append(r[load][who], m)
}

func (r results) print(w io.Writer, c config) error {
	_, err := fmt.Fprintf(w, "Medians of %d rounds of %v; ratio: calls a second of the registry divided by those of etcd\n\n"+
		"| load | registry | etcd | ratio | of the rounds | p50, p99 of the registry | of etcd |\n|---|--:|--:|--:|--:|--:|--:|\n", c.rounds, c.duration)
	for _, l := range loads {
		a, b := r[l.name][ours], r[l.name][theirs]
		if len(a) == 0 || err != nil {
			continue
		}
		var ratios []float64
		for i := range a {
			ratios = append(ratios, a[i].perSecond/b[i].perSecond)
		}
		x, y := median(a, rate), median(b, rate)
		_, err = fmt.Fprintf(w, "| %s | %.0f/s | %.0f/s | %.2f | %.2f to %.2f | %s | %s |\n",
			l.name, x, y, x/y, slices.Min(ratios), slices.Max(ratios), latency(a), latency(b))
	}
	return err
}

func rate(m measurement) float64 { return m.perSecond }

func median[T cmp.Ordered](all []measurement, of func(measurement) T) T {
	var values []T
	for _, m := range all {
		values = append(values, of(m))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func latency(all []measurement) string {
	ms := func(of func(measurement) time.Duration) float64 {
		return float64(median(all, of)) / float64(time.Millisecond)
	}
	return fmt.Sprintf("%.2f ms, %.2f ms", ms(func(m measurement) time.Duration { return m.p50 }), ms(func(m measurement) time.Duration { return m.p99 }))
}
