package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/werbenhu/registry/tests/systems"
)

func main() {
	members := flag.String("members", "10000,100000,1000000", "members of the cluster, comma-separated")
	groups := flag.String("groups", "1000", "groups that they are spread over, comma-separated")
	virtualNodes := flag.Int("virtual-nodes", 0, "of each group, a power of two from 64 to 4096; 0: the default")
	beat := flag.Int("beat", 100_000, "leases that beat at the end and lose their leader, at most; 0: none")
	saves := flag.Int("saves", 0, "rounds of 8 s in which writes are measured without and beside saves of snapshots")
	asJSON := flag.Bool("json", false, "print an object for each row")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *members, *groups, size{virtualNodes: *virtualNodes, beat: *beat, saves: *saves}, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, members, groups string, of size, asJSON bool) (err error) {
	dir, err := os.MkdirTemp("", "scale-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program, err := systems.BuildRegistry(ctx, dir)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	if !asJSON {
		fmt.Fprintln(out, header)
	}
	for n, err := range numbers(members) {
		if err != nil {
			return err
		}
		for g, err := range numbers(groups) {
			if err != nil {
				return err
			}
			of.members, of.groups = n, min(n, g)
			row, err := measure(ctx, program, dir, of)
			if err != nil {
				return fmt.Errorf("%d members in %d groups: %w", n, g, err)
			}
			if err := printRow(out, row, asJSON); err != nil {
				return err
			}
		}
	}
	return nil
}

// printRow prints each row as soon as it is known.
func printRow(out *tabwriter.Writer, row result, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(row)
	}
	fmt.Fprintln(out, row)
	return out.Flush()
}

func numbers(list string) func(func(int, error) bool) {
	return func(yield func(int, error) bool) {
		for field := range strings.SplitSeq(list, ",") {
			n, err := strconv.Atoi(field)
			if err == nil && n < 1 {
				err = fmt.Errorf("%d: want at least 1", n)
			}
			if !yield(n, err) {
				return
			}
		}
	}
}
