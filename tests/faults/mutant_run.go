//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/tests/faults/check"
	"github.com/werbenhu/registry/tests/source"
)

// mutantRow is what became of one mutant.
type mutantRow struct {
	Mutant string `json:"mutant"`
	Off    string `json:"off"`
	// Kind that found it in that many runs, those of other kinds included, and
	// what the violation said.
	Kind string `json:"kind,omitempty"`
	Runs int    `json:"runs,omitempty"`
	Said string `json:"said,omitempty"`
	// Test that fails with it, and what it said.
	Test     string `json:"test,omitempty"`
	TestSaid string `json:"test_said,omitempty"`
	// Other violations that were met on the way.
	Other   []string      `json:"other,omitempty"`
	Skipped []string      `json:"skipped,omitempty"` // kinds that cannot run here
	Missing []string      `json:"missing,omitempty"` // what should have found it
	Took    time.Duration `json:"took"`
}

// finders says who looks for mutants.
type finders struct{ kinds, tests bool }

func parseFinders(names string) (f finders, err error) {
	for name := range strings.SplitSeq(names, ",") {
		switch strings.TrimSpace(name) {
		case "kinds":
			f.kinds = true
		case "tests":
			f.tests = true
		default:
			return f, fmt.Errorf("-finders: %q is neither kinds nor tests", name)
		}
	}
	return f, nil
}

// allMutants looks for every mutant, several at a time.
func (h *harness) allMutants(ctx context.Context, chosen []Mutant, by finders, parallel int) ([]*mutantRow, error) {
	root, err := source.Dir(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]*mutantRow, len(chosen))
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(parallel, len(chosen)) {
		wg.Go(func() {
			for i := range work {
				began := time.Now()
				if err := h.mutant(ctx, rows[i], chosen[i], root, by); err != nil {
					rows[i].Missing = append(rows[i].Missing, err.Error())
				}
				rows[i].Took = time.Since(began)
				h.say("%v", rows[i])
			}
		})
	}
	for i, m := range chosen {
		rows[i] = &mutantRow{Mutant: m.Name, Off: m.Off}
		work <- i
	}
	close(work)
	wg.Wait()
	return rows, nil
}

// mutant builds one and looks for it.
func (h *harness) mutant(ctx context.Context, row *mutantRow, m Mutant, root string, by finders) error {
	dir := filepath.Join(h.env.dir, "mutant-"+m.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return err
	}
	if by.tests && len(m.Tests) > 0 {
		row.Test, row.TestSaid, err = m.failingTest(ctx, overlay)
		if err != nil {
			row.Missing = append(row.Missing, fmt.Sprintf("tests %v: %v", m.Tests, err))
		}
	}
	if !by.kinds || len(m.Kinds) == 0 {
		return nil
	}
	env := &Env{Binary: filepath.Join(dir, "registry"), Isolation: h.env.Isolation, Forgets: m.Forgets, dir: dir}
	if err := source.Build(ctx, env.Binary, program, "-ldflags=-s -w", "-overlay", overlay); err != nil {
		return err
	}
	for _, name := range m.Kinds {
		kinds, err := choose(name)
		if err != nil {
			return err
		}
		if found, err := h.hunt(ctx, row, m, env, kinds[0]); found || err != nil {
			return err
		}
	}
	if len(row.Skipped) < len(m.Kinds) {
		row.Missing = append(row.Missing, fmt.Sprintf("kinds %s: no violation in %d runs", strings.Join(m.Kinds, ", "), row.Runs))
	}
	return nil
}

// hunt runs a kind until it finds the mutant, or as often as it may.
func (h *harness) hunt(ctx context.Context, row *mutantRow, m Mutant, env *Env, k Kind) (found bool, err error) {
	if k.Needs != nil {
		if err := k.Needs(env); err != nil {
			row.Skipped = append(row.Skipped, k.Name+": "+err.Error())
			return false, nil
		}
	}
	var s *session
	end := func() error {
		if s == nil {
			return nil
		}
		old := s
		s = nil
		return old.cluster.Close(false)
	}
	defer func() { err = errors.Join(err, end()) }()
	for i := 0; i < m.Runs; i++ {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if time.Now().After(h.deadline) {
			return false, errors.New("no time left (-budget)")
		}
		seed := h.seed + uint64(i)
		if s == nil {
			if s, err = newSession(ctx, env, k, seed); err != nil {
				return false, err
			}
		}
		res, history, drawings, err := s.run(ctx, seed)
		if err != nil {
			return false, err
		}
		row.Runs++
		if h.keep {
			if res.Evidence, err = h.keepEvidence(s, &res, history, drawings); err != nil {
				return false, err
			}
		}
		h.say("mutant %s: %s seed %d: %d violations, %v", m.Name, k.Name, seed, len(res.Violations), res.Took.Round(100*time.Millisecond))
		if at := slices.IndexFunc(res.Violations, m.found); at >= 0 {
			row.Kind, row.Said = k.Name, res.Violations[at].String()
			return true, nil
		}
		for _, v := range res.Violations {
			row.Other = append(row.Other, k.Name+": "+v.String())
		}
		if len(res.Violations) > 0 || k.Fresh {
			if err := end(); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// found says whether a violation is the one that the mutant should cause.
func (m Mutant) found(v check.Violation) bool { return m.Says == nil || m.Says.MatchString(v.String()) }

func (r *mutantRow) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mutant %s (%v):", r.Mutant, r.Took.Round(time.Second))
	if r.Kind != "" {
		fmt.Fprintf(&b, "\n  found by %s in %d runs: %s", r.Kind, r.Runs, r.Said)
	}
	if r.Test != "" {
		fmt.Fprintf(&b, "\n  found by %s: %s", r.Test, r.TestSaid)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "\n  skipped %s", s)
	}
	for _, s := range r.Missing {
		fmt.Fprintf(&b, "\n  NOT FOUND: %s", s)
	}
	for _, s := range r.Other[:min(len(r.Other), shownViolations)] {
		fmt.Fprintf(&b, "\n  met on the way: %s", shortened(s))
	}
	return b.String()
}

// reportMutants prints the rows, and returns an error for what was not found.
func (h *harness) reportMutants(w io.Writer, rows []*mutantRow) error {
	if h.json {
		enc := json.NewEncoder(w)
		enc.SetIndent("", " ")
		if err := enc.Encode(map[string]any{"seed": h.seed, "mutants": rows}); err != nil {
			return err
		}
	} else if err := printMutants(w, rows); err != nil {
		return err
	}
	var missing []string
	for _, r := range rows {
		if len(r.Missing) > 0 {
			missing = append(missing, r.Mutant)
		}
	}
	if len(missing) > 0 {
		return cli.Exit(fmt.Sprintf("not found: %s", strings.Join(missing, ", ")), exitViolation)
	}
	return nil
}

func printMutants(w io.Writer, rows []*mutantRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SWITCHED OFF\tKIND\tRUNS\tTEST\tWHAT THE VIOLATION SAID")
	for _, r := range rows {
		kind, runs, test, said := "–", "–", "–", shortened(r.Said)
		if r.Runs > 0 {
			runs = fmt.Sprint(r.Runs)
		}
		if r.Kind != "" {
			kind = r.Kind
		}
		if r.Test != "" {
			test = r.Test
		}
		if said == "" {
			said = shortened(r.TestSaid)
		}
		for _, s := range r.Skipped {
			said += "; skipped " + s
		}
		if len(r.Missing) > 0 {
			said += "; NOT FOUND: " + strings.Join(r.Missing, "; ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Mutant, kind, runs, test, strings.TrimPrefix(said, "; "))
	}
	return t.Flush()
}

// shortened is the first line of a text, and not all of a long one.
func shortened(s string) string {
	const limit = 160
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}

func listMutants(w io.Writer, chosen []Mutant) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range chosen {
		fmt.Fprintf(t, "%s\t%s\t%s\t%v\n", m.Name, m.Off, strings.Join(m.Kinds, ","), m.Tests)
	}
	return t.Flush()
}
