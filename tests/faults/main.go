//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/tests/faults/check"
	"github.com/werbenhu/registry/tests/faults/load"
)

// Exit codes.
const (
	exitViolation = 1
	exitUsage     = 2
	exitMissing   = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := &cli.App{
		Name: "faults", Usage: "inject faults into real registry processes and judge what clients saw",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kinds", Usage: "comma separated names of `KINDS` (default: all)"},
			&cli.IntFlag{Name: "runs", Usage: "runs of each kind", Value: 20},
			&cli.Uint64Flag{Name: "seed", Usage: "of the first run of each kind; the next have the next; 0 draws one"},
			&cli.IntFlag{Name: "parallel", Usage: "clusters at a time", Value: 2},
			&cli.DurationFlag{Name: "budget", Usage: "start no run after that", Value: 55 * time.Minute},
			&cli.BoolFlag{Name: "json", Usage: "print JSON instead of a table"},
			&cli.BoolFlag{Name: "keep", Usage: "keep the evidence of every run, not only of violations"},
			&cli.BoolFlag{Name: "list", Usage: "list the kinds"},
			&cli.StringFlag{Name: "binary", Usage: "test the registry at `PATH` instead of building one"},
			&cli.BoolFlag{Name: "plain", Usage: "no secret, no TLS and no tokens, for a -binary that knows none"},
			&cli.StringFlag{Name: "mutant", Usage: "switch the protections with these `NAMES` off, or all, each in turn, and find that out (make mutants)"},
			&cli.StringFlag{Name: "finders", Usage: "what looks for mutants: kinds, tests or both", Value: "kinds,tests"},
			&cli.StringFlag{Name: "evidence", Usage: "put evidence into `DIR` (default: a temporary folder)"},
		},
		Action: func(c *cli.Context) error { return action(c) },
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		var coder cli.ExitCoder
		if errors.As(err, &coder) {
			os.Exit(coder.ExitCode())
		}
		os.Exit(exitUsage)
	}
}

func action(c *cli.Context) (err error) {
	chosen, err := choose(c.String("kinds"))
	if err != nil {
		return err
	}
	h := &harness{runs: c.Int("runs"), seed: c.Uint64("seed"), keep: c.Bool("keep"), evidence: c.String("evidence"), json: c.Bool("json")}
	if h.runs < 1 || c.Int("parallel") < 1 {
		return errors.New("-runs and -parallel must be at least 1")
	}
	var mutated []Mutant
	if names := c.String("mutant"); names != "" {
		if mutated, err = chooseMutants(names); err != nil {
			return err
		}
	}
	by, err := parseFinders(c.String("finders"))
	if err != nil {
		return err
	}
	if c.Bool("list") {
		if mutated != nil {
			return listMutants(os.Stdout, mutated)
		}
		return list(os.Stdout, chosen)
	}
	if h.env, err = newEnv(c.Context, c.String("binary")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.env.close()) }()
	h.env.Plain = c.Bool("plain")
	if h.seed == 0 {
		h.seed = uint64(time.Now().UnixNano() % 1e9)
	}
	h.say("seed %d", h.seed)
	if h.env.Isolation != nil {
		h.say("no faults of the network: %v", h.env.Isolation)
	}
	h.deadline = time.Now().Add(c.Duration("budget"))
	if mutated != nil {
		rows, err := h.allMutants(c.Context, mutated, by, c.Int("parallel"))
		if err != nil {
			return err
		}
		return h.reportMutants(os.Stdout, rows)
	}
	rows := h.all(c.Context, chosen, c.Int("parallel"))
	return h.report(os.Stdout, rows)
}

func choose(names string) ([]Kind, error) {
	all := kinds()
	if names == "" {
		return all, nil
	}
	var chosen []Kind
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(k Kind) bool { return k.Name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no kind %q; -list lists them", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// harness runs kinds, several at a time.
type harness struct {
	env      *Env
	runs     int
	seed     uint64
	keep     bool
	evidence string
	json     bool
	deadline time.Time

	mu sync.Mutex // guards standard error and evidence
}

func (h *harness) say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// all runs every kind and returns a row for each.
func (h *harness) all(ctx context.Context, chosen []Kind, parallel int) []*row {
	rows := make([]*row, len(chosen))
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(parallel, len(chosen)) {
		wg.Go(func() {
			for i := range work {
				h.kind(ctx, rows[i], chosen[i])
			}
		})
	}
	for i, k := range chosen {
		rows[i] = &row{Kind: k.Name, Wanted: h.runs}
		work <- i
	}
	close(work)
	wg.Wait()
	return rows
}

// kind makes the runs of one kind, on one cluster as long as that is in order.
func (h *harness) kind(ctx context.Context, row *row, k Kind) {
	if k.Needs != nil {
		if err := k.Needs(h.env); err != nil {
			row.Skipped = err.Error()
			h.say("%s: SKIPPED: %v", k.Name, err)
			return
		}
	}
	var s *session
	defer func() { h.endSession(s, row) }()
	defer func() {
		if p := recover(); p != nil {
			row.fail(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	again := 0
	for i := 0; i < h.runs && ctx.Err() == nil && time.Now().Before(h.deadline); {
		seed := h.seed + uint64(i)
		if s == nil {
			var err error
			if s, err = newSession(ctx, h.env, k, seed); err != nil {
				row.fail(err)
				return
			}
		}
		res, history, drawings, err := s.run(ctx, seed)
		if err != nil {
			if ctx.Err() == nil {
				row.fail(err)
			}
			return
		}
		if onlyUnshown(res.Violations) && again < maxAgain {
			again++
			row.Again++
			h.say("%-24s seed %d: once more: %s", res.Kind, res.Seed, res.Violations[0].Text)
			continue
		}
		again = 0
		i++
		h.judge(s, &res, history, drawings)
		row.add(res)
		if len(res.Violations) > 0 || k.Fresh {
			h.endSession(s, row)
			s = nil
		}
	}
}

// maxAgain is how often a run is made once more that did not show what it was
// for. Then it counts as a violation.
const maxAgain = 2

func onlyUnshown(found []check.Violation) bool {
	return len(found) > 0 && !slices.ContainsFunc(found, func(v check.Violation) bool { return !v.Unshown })
}

func (h *harness) endSession(s *session, row *row) {
	if s == nil {
		return
	}
	if err := s.cluster.Close(false); err != nil {
		row.fail(err)
	}
}

// judge says what a run found, and keeps the evidence.
func (h *harness) judge(s *session, res *Result, history *load.History, drawings map[string]check.Drawing) {
	if len(res.Violations) == 0 {
		h.say("%-24s seed %d: ok, %d operations, %v", res.Kind, res.Seed, res.Operations, res.Took.Round(100*time.Millisecond))
		if !h.keep {
			return
		}
	}
	path, err := h.keepEvidence(s, res, history, drawings)
	if err != nil {
		h.say("%s: evidence: %v", res.Kind, err)
	}
	res.Evidence = path
	if len(res.Violations) > 0 {
		h.complain(s, res, history)
	}
}
