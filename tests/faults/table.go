//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/tests/faults/cluster"
)

// row is what became of one kind.
type row struct {
	Kind    string   `json:"kind"`
	Wanted  int      `json:"wanted"`
	Runs    []Result `json:"runs"`
	Again   int      `json:"again,omitempty"` // runs made once more
	Skipped string   `json:"skipped,omitempty"`
	Errors  []string `json:"errors,omitempty"` // of the harness
}

func (r *row) add(res Result) { r.Runs = append(r.Runs, res) }
func (r *row) fail(err error) { r.Errors = append(r.Errors, err.Error()) }
func (r *row) operations() (n int) {
	for _, res := range r.Runs {
		n += res.Operations
	}
	return n
}

func (r *row) violations() (n int) {
	for _, res := range r.Runs {
		n += len(res.Violations)
	}
	return n
}

// spread is the median and the worst.
func spread(runs []Result, of func(Result) []time.Duration) string {
	var all []time.Duration
	for _, res := range runs {
		all = append(all, of(res)...)
	}
	if len(all) == 0 {
		return "–"
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f / %.2f s", all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
}

// report prints the rows, and returns an error for what is not as it should be.
func (h *harness) report(w io.Writer, rows []*row) error {
	if h.json {
		enc := json.NewEncoder(w)
		enc.SetIndent("", " ")
		if err := enc.Encode(map[string]any{"seed": h.seed, "kinds": rows}); err != nil {
			return err
		}
	} else if err := printTable(w, rows); err != nil {
		return err
	}
	again := 0
	for _, r := range rows {
		again += r.Again
	}
	if again > 0 && !h.json {
		fmt.Fprintf(w, "%d runs were made once more, because the machine had kept the clients from beating\n", again)
	}
	violations, missing, failed := 0, 0, []string(nil)
	for _, r := range rows {
		violations += r.violations()
		if r.Skipped == "" {
			missing += r.Wanted - len(r.Runs)
		}
		for _, e := range r.Errors {
			failed = append(failed, r.Kind+": "+e)
		}
	}
	switch {
	case violations > 0:
		return cli.Exit(fmt.Sprintf("%d violations; %s", violations, strings.Join(failed, "; ")), exitViolation)
	case missing > 0 || len(failed) > 0:
		return cli.Exit(fmt.Sprintf("%d runs are missing; %s", missing, strings.Join(failed, "; ")), exitMissing)
	}
	return nil
}

func printTable(w io.Writer, rows []*row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FAULT\tRUNS\tOPERATIONS\tVIOLATIONS\tRECOVERY FROM THE FAULT\tAND FROM ITS HEALING (MEDIAN / WORST)")
	for _, r := range rows {
		if r.Skipped != "" {
			fmt.Fprintf(t, "%s\tskipped\t–\t–\t–\t–\n", r.Kind)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\n", r.Kind, len(r.Runs), r.operations(), r.violations(),
			spread(r.Runs, func(res Result) []time.Duration { return res.Fault }),
			spread(r.Runs, func(res Result) []time.Duration { return res.Heal }))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Skipped != "" {
			fmt.Fprintf(w, "%s was skipped: %s\n", r.Kind, r.Skipped)
		}
	}
	return nil
}

// list prints the kinds, and which cannot run here.
func list(w io.Writer, kinds []Kind) error {
	env := &Env{Isolation: cluster.Isolation()}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, k := range kinds {
		not := ""
		if k.Needs != nil {
			if err := k.Needs(env); err != nil {
				not = " (not here: " + err.Error() + ")"
			}
		}
		fmt.Fprintf(t, "%s\t%s%s\n", k.Name, k.About, not)
	}
	return t.Flush()
}
