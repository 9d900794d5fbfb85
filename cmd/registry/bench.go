package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// benchCommand loads a running cluster: plain calls, closed loops, one call
// under way for each caller.
func benchCommand(e *env) *cli.Command {
	flags := func(own ...cli.Flag) []cli.Flag {
		return clientFlags(append(own, jsonFlag(),
			&cli.IntFlag{Name: "callers", Value: 64, Usage: "callers that wait for their answers, 1 to 100000"},
			&cli.IntFlag{Name: "conns", Usage: "connections to each node that they share (default: one for 64 callers)"},
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Second, Usage: "how long to measure, at most 10m"},
			&cli.IntFlag{Name: "groups", Value: 100, Usage: "groups that members are spread over, 1 to 10000"},
		)...)
	}
	sub := func(name, usage string, newLoad func(*cli.Context) load, own ...cli.Flag) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, Flags: flags(own...),
			Action: func(c *cli.Context) error { return runBench(c, e, name, newLoad(c)) },
		}
	}
	members := &cli.IntFlag{Name: "members", Value: 100, Usage: "members of each group, registered first, 1 to 100000"}
	return &cli.Command{
		Name:     "bench",
		Category: categoryCluster,
		Usage:    "put load on a running cluster and measure it",
		Subcommands: []*cli.Command{
			sub("register", "each call registers a new member", newRegisterLoad),
			sub("heartbeat", "each call renews leases",
				newHeartbeatLoad, members, &cli.IntFlag{Name: "batch", Value: 1, Usage: "leases in one heartbeat, 1 to 1000"}),
			sub("match", "each call matches keys",
				newMatchLoad, members, &cli.IntFlag{Name: "batch", Value: 1, Usage: "keys in one call, 1 to 1000"}),
		},
	}
}

// load is one kind of call.
type load interface {
	// prepare is run once, before the clock starts.
	prepare(ctx context.Context, clients []registrypb.RegistryClient) error
	// caller returns the i-th caller's call; it returns how many operations
	// one call is.
	caller(i int, client registrypb.RegistryClient) func(context.Context) (int, error)
	// clean deletes what the run made, whatever became of it.
	clean(ctx context.Context, clients []registrypb.RegistryClient) error
}

type benchResult struct {
	Load      string  `json:"load"`
	Callers   int     `json:"callers"`
	Seconds   float64 `json:"seconds"`
	Ops       int     `json:"ops"`
	PerSecond float64 `json:"per_second"`
	Errors    int     `json:"errors"`
	FirstErr  string  `json:"first_error"`
	P50Micros float64 `json:"p50_us"`
	P99Micros float64 `json:"p99_us"`
	MaxMicros float64 `json:"max_us"`

	first error // that FirstErr is the text of
}

func runBench(c *cli.Context, e *env, name string, l load) error {
	if _, err := positional(c); err != nil {
		return err
	}
	for flag, limit := range map[string]int{"callers": 100_000, "groups": 10_000, "members": 100_000, "batch": 1000} {
		if c.IsSet(flag) && (c.Int(flag) < 1 || c.Int(flag) > limit) {
			return usageErrorf("-%s is %d, want 1 to %d", flag, c.Int(flag), limit)
		}
	}
	if d := c.Duration("duration"); d <= 0 || d > 10*time.Minute {
		return usageErrorf("-duration is %s, want more than 0 and at most 10m", d)
	}
	addrs := list(c, flagRegistries)
	if len(addrs) == 0 {
		return usageErrorf("-%s names no address", flagRegistries)
	}
	reach := newReach(addrs)
	reach.hintUnless(c, flagRegistries)
	clients, closeAll, err := benchClients(c, reach)
	if err != nil {
		return err
	}
	defer closeAll()
	if c.Context, err = holdTogether(c.Context, c.String(flagCluster), c.Duration(flagTimeout), clients[:len(addrs)]); err != nil {
		return reach.explain(err)
	}
	r, err := benchRun(c, l, clients)
	if err != nil {
		return err
	}
	r.Load = name
	if c.Bool(flagJSON) {
		err = writeJSON(e.stdout, r)
	} else {
		err = printBench(e.stdout, r)
	}
	if err == nil && r.Ops == 0 && r.first != nil {
		err = &exitError{code: exitCode(r.first), err: fmt.Errorf("bench %s: no call succeeded", name)}
	}
	return err
}

// benchRun measures, and cleans up in any case: groups have no end of their own.
func benchRun(c *cli.Context, l load, clients []registrypb.RegistryClient) (r benchResult, err error) {
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), benchCleanup)
		defer cancel()
		cerr := l.clean(ctx, clients)
		switch {
		case cerr == nil:
		case c.Context.Err() != nil: // that it was interrupted is known
			err = fmt.Errorf("clean up: %w", cerr)
		default:
			err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
		}
	}()
	if err := l.prepare(c.Context, clients); err != nil {
		return r, fmt.Errorf("prepare: %w", err)
	}
	return measure(c, l, clients), nil
}

func printBench(w io.Writer, r benchResult) error {
	_, err := fmt.Fprintf(w, "%s: %s, %.1fs: %.0f/s, p50 %.2fms, p99 %.2fms, max %.2fms, %s\n",
		r.Load, count(r.Callers, "caller", "callers"), r.Seconds, r.PerSecond, r.P50Micros/1e3, r.P99Micros/1e3, r.MaxMicros/1e3, count(r.Errors, "error", "errors"))
	if err == nil && r.FirstErr != "" {
		_, err = fmt.Fprintf(w, "first error: %s\n", r.FirstErr)
	}
	return err
}

// benchClients opens the connections: to each node as many, in turn.
func benchClients(c *cli.Context, reach *reach) ([]registrypb.RegistryClient, func(), error) {
	each := c.Int("conns")
	if each <= 0 {
		each = max(1, c.Int("callers")/64/len(reach.given))
	}
	var clients []registrypb.RegistryClient
	var conns []*grpc.ClientConn
	closeAll := func() {
		for _, conn := range conns {
			_ = conn.Close() // nothing is under way any more
		}
	}
	for range each {
		for _, addr := range reach.given {
			conn, err := dialDirect(addr, reach)
			if err != nil {
				closeAll()
				return nil, nil, fmt.Errorf("dial %s: %w", addr, err)
			}
			conns = append(conns, conn)
			clients = append(clients, registrypb.NewRegistryClient(conn))
		}
	}
	return clients, closeAll, nil
}

func measure(c *cli.Context, l load, clients []registrypb.RegistryClient) benchResult {
	type tally struct {
		ops, errors int
		first       error
		took        []time.Duration
	}
	tallies := make([]tally, c.Int("callers"))
	var wg sync.WaitGroup
	start := time.Now()
	end := start.Add(c.Duration("duration"))
	for i := range tallies {
		t, call := &tallies[i], l.caller(i, clients[i%len(clients)])
		wg.Go(func() {
			for began := time.Now(); began.Before(end) && c.Context.Err() == nil; began = time.Now() {
				n, err := call(c.Context)
				if err != nil {
					t.errors++
					t.first = cmp.Or(t.first, err)
					continue
				}
				t.ops += n
				t.took = append(t.took, time.Since(began))
			}
		})
	}
	wg.Wait()
	r := benchResult{Callers: len(tallies), Seconds: time.Since(start).Seconds()}
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
		r.P50Micros, r.P99Micros, r.MaxMicros = at(0.5), at(0.99), at(1)
	}
	return r
}
