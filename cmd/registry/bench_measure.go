package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// tally is what one caller has counted.
type tally struct {
	ops, errors int
	first       error
	took        []time.Duration
}

// measure has each caller make one call after the other.
func measure(c *cli.Context, progress io.Writer, l load, clients []registrypb.RegistryClient) benchResult {
	tallies := make([]tally, benchCallers(c))
	begin := newSchedule(c.Context, c.Float64("rate"), c.Duration("duration"))
	var done atomic.Int64
	var wg sync.WaitGroup
	for i := range tallies {
		t, call := &tallies[i], l.caller(i, clients[i%len(clients)])
		wg.Go(func() {
			for {
				due, ok := begin.next()
				if !ok {
					return
				}
				n, err := call(c.Context)
				if err != nil {
					t.errors++
					t.first = cmp.Or(t.first, err)
					continue
				}
				t.ops += n
				t.took = append(t.took, time.Since(due))
				done.Add(int64(n))
			}
		})
	}
	stop := showProgress(c.Context, progress, begin, &done)
	wg.Wait()
	stop()
	r := sum(tallies, time.Since(begin.start))
	r.Rate, r.Missed = begin.rate, begin.missed()
	return r
}

// schedule says when calls begin. Without a rate a call begins when its caller's last
// has ended, and a slow system gets fewer calls. With one, calls begin at fixed times,
// and what is counted begins then, too: a call that is late because all callers wait
// for answers counts its wait.
type schedule struct {
	ctx        context.Context
	start, end time.Time
	rate       float64
	due, begun atomic.Int64 // calls; of those that are due, the last may never begin
}

func newSchedule(ctx context.Context, rate float64, d time.Duration) *schedule {
	now := time.Now()
	return &schedule{ctx: ctx, start: now, end: now.Add(d), rate: rate}
}

// next waits until the caller's next call is due; false: the time is over. It is not
// over before the first call, however short it is: a run without a call says nothing.
func (s *schedule) next() (due time.Time, ok bool) {
	due = time.Now()
	if s.rate > 0 {
		due = s.start.Add(time.Duration(float64(s.due.Add(1)-1) / s.rate * float64(time.Second)))
	}
	late := !due.Before(s.end) || !time.Now().Before(s.end)
	if late && s.begun.Load() > 0 || s.ctx.Err() != nil {
		return due, false
	}
	if wait := time.Until(due); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return due, false
		}
	}
	s.begun.Add(1)
	return due, true
}

// missed is how many calls were due and did not begin: no caller was free before the
// end. The times of the others say less then.
func (s *schedule) missed() int {
	if s.rate == 0 || s.ctx.Err() != nil {
		return 0
	}
	return max(0, int(s.rate*s.end.Sub(s.start).Seconds())-int(s.begun.Load()))
}

// sum adds the callers up.
func sum(tallies []tally, took time.Duration) benchResult {
	r := benchResult{Callers: len(tallies), Seconds: took.Seconds()}
	var all []time.Duration
	for _, t := range tallies {
		r.Ops += t.ops
		r.Errors += t.errors
		if t.first != nil && r.first == nil {
			r.first, r.FirstErr = t.first, t.first.Error()
		}
		all = append(all, t.took...)
	}
	r.PerSecond = float64(r.Ops) / r.Seconds
	if len(all) > 0 {
		slices.Sort(all)
		at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) }
		r.P50Micros, r.P90Micros, r.P99Micros, r.P999, r.MaxMicros = at(0.5), at(0.9), at(0.99), at(0.999), at(1)
	}
	return r
}

// showProgress says on a terminal each second how far the run is. stop clears the line.
func showProgress(ctx context.Context, w io.Writer, s *schedule, done *atomic.Int64) (stop func()) {
	if !isTerminal(w) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for last := int64(0); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				fmt.Fprint(w, "\r\x1b[K")
				return
			}
			n := done.Load()
			fmt.Fprintf(w, "\r\x1b[K%.0fs of %v: %d/s", time.Since(s.start).Seconds(), s.end.Sub(s.start), n-last)
			last = n
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
