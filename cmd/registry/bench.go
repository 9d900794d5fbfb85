package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// benchCommand loads a running cluster with plain calls, one under way for each caller.
func benchCommand(e *env) *cli.Command {
	one := func(name, usage string, newLoad func(*cli.Context) load, own ...cli.Flag) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, Flags: clientFlags(append(own, jsonFlag(),
				&cli.DurationFlag{Name: "duration", Value: 5 * time.Second, Usage: "how long to measure, at most 10m"},
				&cli.Float64Flag{Name: "rate", Usage: "calls to begin a second, of all callers, at most 1000000; each lasts from when it was due (default: a caller's next call begins when its last has ended)"},
			)...),
			Action: func(c *cli.Context) error { return runBench(c, e, name, newLoad(c)) },
		}
	}
	sub := func(name, usage string, newLoad func(*cli.Context) load, own ...cli.Flag) *cli.Command {
		return one(name, usage, newLoad, append(own,
			&cli.IntFlag{Name: "callers", Value: 64, Usage: "callers that wait for their answers, 1 to 100000"},
			&cli.IntFlag{Name: "conns", Usage: "connections to each node that they share (default: one for 64 callers)"},
			&cli.IntFlag{Name: "groups", Value: 100, Usage: "groups that members are spread over, 1 to 10000"},
		)...)
	}
	members := &cli.IntFlag{Name: "members", Value: 100, Usage: "members of each group, registered first, 1 to 100000"}
	return &cli.Command{
		Name:     "bench",
		Category: categoryCluster,
		Usage:    "put load on a running cluster and measure it",
		Subcommands: []*cli.Command{
			sub("register", "each call registers new members", newRegisterLoad,
				&cli.IntFlag{Name: "batch", Value: 1, Usage: "members in one call, 1 to 1000"}),
			sub("heartbeat", "each call renews leases",
				newHeartbeatLoad, members, &cli.IntFlag{Name: "batch", Value: 1, Usage: "leases in one heartbeat, 1 to 1000"}),
			sub("match", "each call matches keys",
				newMatchLoad, members, &cli.IntFlag{Name: "batch", Value: 1, Usage: "keys in one call, 1 to 1000"}),
			sub("members", "each call lists the members of a group", newMembersLoad, members),
			sub("mixed", "of 100 calls 90 match a key, 8 renew a lease and 2 register a member", newMixedLoad, members),
			sub("watch", "each call registers a new member and lasts until a watcher at each node has seen it", newWatchLoad, members),
			one("failover", "one caller; each call hands leadership to another voter and lasts until a registration after it is acknowledged", newFailoverLoad),
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
	Rate      float64 `json:"rate"`   // of calls that were to begin; 0: none was set
	Missed    int     `json:"missed"` // calls of the rate that did not begin before the end
	Errors    int     `json:"errors"`
	FirstErr  string  `json:"first_error"`
	P50Micros float64 `json:"p50_us"`
	P90Micros float64 `json:"p90_us"`
	P99Micros float64 `json:"p99_us"`
	P999      float64 `json:"p999_us"`
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
	if r := c.Float64("rate"); c.IsSet("rate") && !(r > 0 && r <= 1e6) {
		return usageErrorf("-rate is %v, want more than 0 and at most 1000000", r)
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
	if err := reach.secure(c.String); err != nil {
		return err
	}
	clients, closeAll, err := benchClients(c, reach)
	if err != nil {
		return err
	}
	defer closeAll()
	if c.Context, err = authorized(c.Context, c.String(flagTokenFile)); err != nil {
		return err
	}
	if c.Context, err = holdTogether(c.Context, c.String(flagCluster), c.Duration(flagTimeout), clients[:len(addrs)]); err != nil {
		return reach.explain(err)
	}
	r, err := benchRun(c, e, l, clients)
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
func benchRun(c *cli.Context, e *env, l load, clients []registrypb.RegistryClient) (r benchResult, err error) {
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
	return measure(c, e.stderr, l, clients), nil
}

func printBench(w io.Writer, r benchResult) error {
	ms := func(us float64) string { return fmt.Sprintf("%.2fms", us/1e3) }
	_, err := fmt.Fprintf(w, "%s: %s, %.1fs: %.0f/s, p50 %s, p90 %s, p99 %s, p99.9 %s, max %s, %s\n",
		r.Load, count(r.Callers, "caller", "callers"), r.Seconds, r.PerSecond,
		ms(r.P50Micros), ms(r.P90Micros), ms(r.P99Micros), ms(r.P999), ms(r.MaxMicros), count(r.Errors, "error", "errors"))
	if err == nil && r.Missed > 0 {
		_, err = fmt.Fprintf(w, "%s did not begin: no caller was free\n", count(r.Missed, "call", "calls"))
	}
	if err == nil && r.FirstErr != "" {
		_, err = fmt.Fprintf(w, "first error: %s\n", r.FirstErr)
	}
	return err
}

// benchCallers is 1 for a load that does not let the user choose.
func benchCallers(c *cli.Context) int { return max(1, c.Int("callers")) }

// benchClients opens the connections: to each node as many, in turn.
func benchClients(c *cli.Context, reach *reach) ([]registrypb.RegistryClient, func(), error) {
	each := c.Int("conns")
	if each <= 0 {
		each = max(1, benchCallers(c)/64/len(reach.given))
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
