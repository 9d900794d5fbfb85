package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// header names the machine, because figures mean nothing without it.
func header(c config) string {
	return fmt.Sprintf("%s; %s/%s, %d processors (%s); %s; %d keys of 16 bytes, median of %d × %v\n",
		time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), processor(), runtime.Version(), c.keys, c.rounds, c.duration)
}

// processor returns the processor's name where the system tells it.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, " \t:"))
		}
	}
	return "unknown"
}

func table(c config, results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d members\n\n", c.members)
	b.WriteString("| library | lookup | parallel | batch | build | join | memory | largest ÷ mean | moved ÷ minimum |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range results {
		name := r.name
		if r.note != "" {
			name += " (" + r.note + ")"
		}
		if r.skipped != "" {
			fmt.Fprintf(&b, "| %s | %s | | | | | | | |\n", name, r.skipped)
			continue
		}
		batch := "–"
		if r.batch > 0 {
			batch = tenths(r.batch)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %.2f | %.2f |\n", name, tenths(r.serial), tenths(r.parallel), batch,
			short(r.build), short(r.join), size(r.memory), r.largest, r.moved)
	}
	return b.String()
}

const footnotes = `
Lookup: one goroutine, the key's hash included. Parallel: wall time ÷ keys with a goroutine on each processor. Batch: 100
keys in one call. Memory: what the heap grew by. Largest ÷ mean: by counting keys, so that a perfectly even division
shows a little more than 1. Join and moved ÷ minimum: five members join; all keys that moved ÷ those that the new
members got. Exact rings have 1. A busy machine shows in the figures: compare rows of one run only.

- (a) not available from the module proxy: its algorithm, rewritten here from its description.
- (b) an internal package: its algorithm, rewritten here from its description. The points of a member depend on the number of members,
  so that some joins move more than they must. A point of the original takes a little more memory.
- (c) only the last member can leave.
- (d) dgryski/go-maglev is not available from the module proxy: the algorithm of the Maglev paper, written here. A table look-up is
  quicker than a ring, but moves more keys than it must, and each change fills the whole table again.
`

// tenths prints a time that was multiplied by ten.
func tenths(d time.Duration) string { return fmt.Sprintf("%d.%d ns", d/10, d%10) }

func short(d time.Duration) string {
	switch {
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%d ns", d)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

func size(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d B", max(n, 0))
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%d MB", n/1_000_000)
}
