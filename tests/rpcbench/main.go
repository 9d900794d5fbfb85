// Rpcbench measures how soon a registration is seen by watchers, beside etcd:
// three processes of each on this machine, a watcher at every one of them, by the
// client library of each system. All watchers and the writer are in this process, so
// that one clock times them all.
//
//	go -C tests run ./rpcbench -changes 200 -rate 20
//
// A change is a registration of a new member here and a put of a new key of the
// same size there, made through each node in turn. The time until a watcher has
// the event counts from the call and from its return; one that saw the event
// before the writer had its answer counts below zero. After that the member and
// the key go again, which is not counted.
//
// With -ring one local ring of the SDK in this process takes the place of the
// three watches, and what counts is when it has published a ring with the member;
// the table then ends with the share of one processor that this process took.
//
// The sides alternate in blocks, so that a disturbance of the machine meets
// both. etcd is its newest release, built from the module tests/etcd; where it
// cannot be built the ratios are missing.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type config struct {
	changes  int     // for each side and size
	rate     float64 // a second
	block    int     // changes of one side before it is the other's turn
	sizes    []int   // members of the group beforehand
	ring     bool    // time a local ring
	registry string  // the program; built if empty
	etcd     string  // the program
}

func main() {
	var c config
	flag.IntVar(&c.changes, "changes", 200, "changes of each side for each size")
	flag.Float64Var(&c.rate, "rate", 20, "changes a second")
	flag.IntVar(&c.block, "block", 25, "changes of one side before the other's turn")
	sizes := flag.String("sizes", "10,100,1000,10000", "members of the group, comma-separated")
	flag.BoolVar(&c.ring, "ring", false, "time a local ring instead of watches")
	flag.StringVar(&c.registry, "registry", "", "registry program (default: built from this source)")
	flag.StringVar(&c.etcd, "etcd", "", "etcd program (default: built from the module tests/etcd)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := c.parse(*sizes)
	if err == nil {
		err = run(ctx, os.Stdout, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rpcbench:", err)
		os.Exit(1)
	}
}

func (c *config) parse(sizes string) error {
	for _, s := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > 100_000 {
			return fmt.Errorf("-sizes has %q, want numbers from 1 to 100000", s)
		}
		c.sizes = append(c.sizes, n)
	}
	if c.changes < 1 || c.block < 1 || c.rate <= 0 || c.rate > 10_000 {
		return fmt.Errorf("-changes %d, -block %d, -rate %v: want 1 or more, and a rate of at most 10000", c.changes, c.block, c.rate)
	}
	return nil
}

// side is a system under measurement.
type side interface {
	name() string
	// watchers is how many see every change; the others of the nodes see none.
	watchers() int
	// fill makes the group or prefix have that many members or keys.
	fill(ctx context.Context, size int) error
	// watch calls seen, from a goroutine for each node, with the name of every
	// member or key that is put at that size; it returns when the watches
	// stand. The watches end with ctx.
	watch(ctx context.Context, size int, seen func(node int, name string)) error
	put(ctx context.Context, size, node int, name string) error
	remove(ctx context.Context, size, node int, name string) error
	close()
}

func run(ctx context.Context, out io.Writer, c config) (err error) {
	dir, err := os.MkdirTemp("", "rpcbench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // of no use to anyone
	var sides []side
	defer func() {
		for _, s := range sides {
			s.close()
		}
	}()
	ours, err := startRegistry(ctx, c.registry, dir, c.ring)
	if err != nil {
		return err
	}
	sides = append(sides, ours)
	theirs, err := startEtcd(ctx, c.etcd, dir)
	if err != nil {
		fmt.Fprintf(out, "without etcd: %v\n", err)
	} else {
		sides = append(sides, theirs)
	}
	table := newTable(out)
	for _, size := range c.sizes {
		results, err := measure(ctx, c, sides, size)
		if err != nil {
			return fmt.Errorf("%d members: %w", size, err)
		}
		table.rows(size, results)
		if c.ring {
			table.processor(size, results)
		}
	}
	return table.flush()
}

// pace waits until the next change is due.
func pace(ctx context.Context, due time.Time) error {
	t := time.NewTimer(time.Until(due))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
