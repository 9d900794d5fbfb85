package e2e

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The target of the lease design is 100,000 leases at a TTL of 10 s on two cores:
//
//	go -C tests test -v ./e2e -run TestManyLeases -leases 100000 -beat 60s
var (
	leasesFlag = flag.Int("leases", 10_000, "leases of TestManyLeases")
	beatFlag   = flag.Duration("beat", 15*time.Second, "how long TestManyLeases renews them")
)

// TestManyLeases renews many leases three times a TTL, a thousand on a stream,
// and expects to lose none, on any node.
func TestManyLeases(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	if raceEnabled {
		t.Skip("keeps two cores busy without the race detector")
	}
	const ttl, groups = 10 * time.Second, 100
	c := startCluster(t, 3)
	began := time.Now()
	h := newHerd(t, c, groups, *leasesFlag, ttl)
	t.Logf("%d leases in %d groups after %v, %d heartbeat streams", *leasesFlag, groups, ms(time.Since(began)), len(h.streams))
	before := usageOf(t, c)
	began = time.Now()
	slowest := time.Duration(0)
	throughout(t, *beatFlag, "heartbeats", func() error {
		if n := h.lost.Load(); n > 0 {
			return fmt.Errorf("%d leases are lost", n)
		}
		for _, s := range h.streams { // a stream's last answer is at most TTL/3 old, and its round trip
			if last := s.last.Load(); last > 0 {
				slowest = max(slowest, time.Since(time.Unix(0, last))-ttl/3)
			}
		}
		return nil
	})
	took := time.Since(began)
	h.beating(0)
	for i, u := range usageOf(t, c) {
		t.Logf("%s: %.1f %% of one core, %d MiB resident", c.nodes[i].id,
			100*(u.cpu-before[i].cpu).Seconds()/took.Seconds(), u.resident>>20)
	}
	t.Logf("%.0f renewals a second; the slowest answer came %v after it was due", float64(*leasesFlag)*3/ttl.Seconds(), ms(slowest))
	eventually(t, patience, "all members", func() error { return totalIs(t, c.nodes[0], uint32(*leasesFlag)) })
	checkDigests(t, c.settled(3))
}

// usage is what a process took, by its own system's count; zero where that has
// no /proc.
type usage struct {
	cpu      time.Duration
	resident int64
}

func usageOf(t *testing.T, c *cluster) []usage {
	t.Helper()
	all := make([]usage, len(c.nodes))
	for i, n := range c.nodes {
		dir := fmt.Sprintf("/proc/%d/", n.cmd.Process.Pid)
		stat, err := os.ReadFile(dir + "stat")
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(stat), ") ") // the name before may hold anything
		fields := strings.Fields(after)
		for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", dir, err)
			}
			all[i].cpu += time.Duration(ticks) * (time.Second / 100)
		}
		pages, err := strconv.ParseInt(fields[21], 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		all[i].resident = pages * int64(os.Getpagesize())
	}
	return all
}
