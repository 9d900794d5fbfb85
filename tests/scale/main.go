package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/werbenhu/registry/tests/systems"
)

func main() {
	members := flag.String("members", "10000,100000,1000000", "members of the cluster, comma-separated")
	groups := flag.String("groups", "1000", "groups that they are spread over, comma-separated")
	beat := flag.Int("beat", 100_000, "leases that beat at the end, at most; 0: none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *members, *groups, *beat); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, members, groups string, beat int) (err error) {
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
	fmt.Fprintln(out, "members\tgroups\tmembers/s\tRSS of a node\tsnapshot\tsave\trestart\tjoin\tbeating\tleader's processor\t")
	for n, err := range numbers(members) {
		if err != nil {
			return err
		}
		for g, err := range numbers(groups) {
			if err != nil {
				return err
			}
			row, err := measure(ctx, program, dir, size{members: n, groups: min(n, g), beat: min(n, beat)})
			if err != nil {
				return fmt.Errorf("%d members in %d groups: %w", n, g, err)
			}
			fmt.Fprintln(out, row)
			if err := out.Flush(); err != nil { // each row as soon as it is known
				return err
			}
		}
	}
	return nil
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

// since is rounded for the table.
func since(began time.Time) time.Duration { return time.Since(began).Round(10 * time.Millisecond) }
