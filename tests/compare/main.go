package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/werbenhu/registry/tests/systems"
)

type config struct {
	rounds   int
	duration time.Duration // of each load
	only     *regexp.Regexp
	registry string // the program; built if empty
	etcd     string // the program; built if empty
}

func main() {
	var c config
	flag.IntVar(&c.rounds, "rounds", 5, "rounds of each system")
	flag.DurationVar(&c.duration, "duration", 4*time.Second, "how long to measure each load")
	only := flag.String("only", "", "loads whose names match this regular expression")
	flag.StringVar(&c.registry, "registry", "", "registry program (default: built from this source)")
	flag.StringVar(&c.etcd, "etcd", "", "etcd program (default: built from the module tests/etcd)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if c.only, err = regexp.Compile(*only); err != nil {
		err = fmt.Errorf("-only: %w", err)
	} else {
		err = run(ctx, os.Stdout, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		stop()
		os.Exit(1)
	}
}

func (c config) validate() error {
	if c.rounds < 1 || c.rounds > 100 {
		return fmt.Errorf("-rounds is %d, want 1 to 100", c.rounds)
	}
	if !slices.ContainsFunc(loads, func(l load) bool { return c.only.MatchString(l.name) }) {
		return fmt.Errorf("-only is %q, which matches no load", c.only)
	}
	if c.duration < 10*time.Millisecond || c.duration > time.Minute {
		return fmt.Errorf("-duration is %v, want 10ms to 1m", c.duration)
	}
	return nil
}

// system is a cluster of one of the two, which runs.
type system interface {
	leader(ctx context.Context) (int, error)
	// prepare makes what heartbeats and matches need.
	prepare(ctx context.Context) error
	// calls returns a call for each caller of a load, over connections that it opens and
	// that close ends. A call returns the number of keys, leases or members in it.
	calls(l load, leader int) (calls []call, close func(), err error)
	Close()
}

type call func(context.Context) (int, error)

// contender starts a system on fresh data in a folder.
type contender struct {
	name  string
	start func(ctx context.Context, dir string) (system, error)
}

func run(ctx context.Context, out io.Writer, c config) (err error) {
	if err := c.validate(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	both, err := contenders(ctx, c, dir)
	if err != nil {
		return err
	}
	results := make(results)
	for round := range c.rounds {
		for i := range both {
			who := both[(i+round)%len(both)]
			if err := c.round(ctx, who, filepath.Join(dir, fmt.Sprintf("%s-%d", who.name, round)), results); err != nil {
				return fmt.Errorf("%s, round %d: %w", who.name, round+1, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, c.rounds, who.name)
		}
	}
	return results.print(out, c)
}

func contenders(ctx context.Context, c config, dir string) ([]contender, error) {
	var err error
	if c.registry == "" {
		if c.registry, err = systems.BuildRegistry(ctx, dir); err != nil {
			return nil, err
		}
	}
	if c.etcd == "" {
		if c.etcd, err = systems.BuildEtcd(ctx, dir); err != nil {
			return nil, err
		}
	}
	return []contender{
		{ours, func(ctx context.Context, dir string) (system, error) { return startRegistry(ctx, c.registry, dir) }},
		{theirs, func(ctx context.Context, dir string) (system, error) { return startEtcd(ctx, c.etcd, dir) }},
	}, nil
}

// round runs all loads on one system, on fresh data.
func (c config) round(ctx context.Context, who contender, dir string, results results) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := who.start(ctx, dir)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	for _, l := range loads {
		if !c.only.MatchString(l.name) {
			continue
		}
		leader, err := s.leader(ctx)
		if err != nil {
			return err
		}
		calls, closeAll, err := s.calls(l, leader)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		got, err := measure(ctx, calls, c.duration)
		closeAll()
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		results.add(l.name, who.name, got)
	}
	return nil
}
