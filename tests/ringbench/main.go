// Command ringbench compares the registry's ring with other consistent hashing libraries: the
// same members and the same keys, in one process, and prints a markdown table.
//
//	go -C tests run ./ringbench [-members 100,1000] [-keys 2097152] [-rounds 5] [-time 100ms]
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	members := flag.String("members", "100,1000", "numbers of members, one table each")
	keys := flag.Int("keys", 1<<21, "number of 16-byte keys")
	rounds := flag.Int("rounds", 5, "measurements of each lookup; the median is printed")
	duration := flag.Duration("time", 100*time.Millisecond, "length of one measurement")
	flag.Parse()
	if err := run(*members, config{keys: *keys, rounds: *rounds, duration: *duration}); err != nil {
		fmt.Fprintln(os.Stderr, "ringbench:", err)
		os.Exit(1)
	}
}

func run(members string, c config) error {
	if c.keys < 1 || c.rounds < 1 || c.duration <= 0 {
		return fmt.Errorf("keys %d, rounds %d, time %v: want at least 1, 1 and 1ns", c.keys, c.rounds, c.duration)
	}
	fmt.Print(header(c))
	for text := range strings.SplitSeq(members, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 2 || n > 100_000 {
			return fmt.Errorf("members: %q, want numbers from 2 to 100000", text)
		}
		c.members = n
		results, err := measureAll(c)
		if err != nil {
			return err
		}
		fmt.Print(table(c, results))
	}
	fmt.Print(footnotes)
	return nil
}
