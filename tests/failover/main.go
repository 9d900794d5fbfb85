package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/werbenhu/registry/tests/systems"
)

// system is a cluster whose leader can be killed.
type system interface {
	name() string
	// leader is the index of the member that leads.
	leader(context.Context) (int, error)
	// write returns when one write was acknowledged.
	write(ctx context.Context, round int) error
	// settled returns nil when all members follow one leader.
	settled(context.Context) error
	all() []*member
}

// member is a process that is started again after it was killed.
type member struct {
	args []string
	log  string
	cmd  *exec.Cmd
}

func (m *member) start() error {
	out, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	m.cmd = exec.Command(m.args[0], m.args[1:]...)
	m.cmd.Stdout, m.cmd.Stderr = out, out
	return m.cmd.Start()
}

func (m *member) kill() {
	if m.cmd != nil && m.cmd.ProcessState == nil {
		_ = m.cmd.Process.Kill() // it may have ended
		_ = m.cmd.Wait()         // it was killed
	}
}

func main() {
	rounds := flag.Int("rounds", 30, "rounds of each system")
	binary := flag.String("binary", "", "the registry; empty: build it")
	election := flag.Duration("election-timeout", 0, "of the registry; 0: its default")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *binary, *election); err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, binary string, election time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "failover-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if binary == "" {
		if binary, err = systems.BuildRegistry(ctx, dir); err != nil {
			return err
		}
	}
	reg, err := newRegistry(binary, dir, election)
	if err != nil {
		return err
	}
	defer reg.close()
	compared := []system{reg}
	if program, err := systems.BuildEtcd(ctx, dir); err != nil {
		fmt.Println("the registry is measured alone:", err)
	} else if e, err := newEtcd(program, dir); err != nil {
		return err
	} else {
		compared = append(compared, e)
	}
	defer killAll(compared)
	took, err := measure(ctx, compared, rounds)
	report(compared, took)
	return err
}

func killAll(systems []system) {
	for _, s := range systems {
		for _, m := range s.all() {
			m.kill()
		}
	}
}

// measure runs the rounds, alternating.
func measure(ctx context.Context, systems []system, rounds int) (map[string][]time.Duration, error) {
	took := make(map[string][]time.Duration)
	for _, s := range systems {
		for _, m := range s.all() {
			if err := m.start(); err != nil {
				return took, err
			}
		}
	}
	for r := range rounds {
		for _, s := range systems {
			d, err := round(ctx, s, r)
			if err != nil {
				return took, fmt.Errorf("%s, round %d: %w", s.name(), r+1, err)
			}
			took[s.name()] = append(took[s.name()], d)
			fmt.Fprintf(os.Stderr, "round %d: %s %v\n", r+1, s.name(), d.Round(time.Millisecond))
		}
	}
	return took, nil
}

// patience bounds each step of a round.
const patience = time.Minute

func round(ctx context.Context, s system, n int) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := await(ctx, func() error { return s.settled(ctx) }); err != nil {
		return 0, err
	}
	if err := s.write(ctx, 2*n); err != nil { // connections are open
		return 0, err
	}
	leader, err := s.leader(ctx)
	if err != nil {
		return 0, err
	}
	victim := s.all()[leader]
	began := time.Now()
	victim.kill()
	if err := s.write(ctx, 2*n+1); err != nil {
		return 0, err
	}
	took = time.Since(began)
	return took, victim.start()
}

// await tries until f returns nil.
func await(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

func report(systems []system, took map[string][]time.Duration) {
	fmt.Printf("%-10s %6s %9s %9s %9s %9s\n", "system", "rounds", "best", "median", "p90", "worst")
	medians := make([]time.Duration, len(systems))
	for i, s := range systems {
		all := slices.Sorted(slices.Values(took[s.name()]))
		n := len(all)
		if n == 0 {
			continue
		}
		medians[i] = all[n/2]
		fmt.Printf("%-10s %6d %9v %9v %9v %9v\n", s.name(), n, ms(all[0]), ms(all[n/2]), ms(all[n*9/10]), ms(all[n-1]))
	}
	if len(systems) == 2 && medians[1] > 0 {
		fmt.Printf("ratio of the medians: %.2f\n", float64(medians[0])/float64(medians[1]))
	}
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
