package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// patience is for what has no promised bound and must happen all the same.
const patience = 30 * time.Second

// eventually tries until f returns nil, and returns how long that took.
func eventually(t *testing.T, within time.Duration, what string, f func() error) time.Duration {
	t.Helper()
	began := time.Now()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return time.Since(began)
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
	}
}

// throughout expects f to return nil for as long as d.
func throughout(t *testing.T, d time.Duration, what string, f func() error) {
	t.Helper()
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-tick.C:
		case <-end.C:
			return
		}
	}
}

// ms rounds a duration for the log.
func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// ports hands out ports below those that systems choose for connections, from
// blocks that this process holds by listening on their first port: nodes that
// restart find their port free, and two runs of the tests do not meet.
var ports struct {
	mu         sync.Mutex // guards the rest
	guards     []net.Listener
	next, last int
}

const portBlock = 250

// claimLocked takes a block that no other run has.
func claimLocked(t *testing.T) {
	t.Helper()
	var err error
	for range 200 {
		base := 20000 + portBlock*rand.IntN(12000/portBlock)
		var l net.Listener
		if l, err = net.Listen("tcp", local(base)); err == nil {
			ports.guards = append(ports.guards, l) // as long as the process runs
			ports.next, ports.last = base+1, base+portBlock
			return
		}
	}
	t.Fatalf("no block of ports is free: %v", err)
}

// freePorts returns n free ports in a row.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	var row []int
	for len(row) < n {
		if ports.next == ports.last {
			claimLocked(t)
			row = row[:0]
		}
		if p := ports.next; isFree(p) {
			row = append(row, p)
		} else {
			row = row[:0]
		}
		ports.next++
	}
	return row
}

func isFree(port int) bool {
	for _, host := range []string{"", "127.0.0.1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		_ = l.Close() // nothing was accepted
	}
	return true
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
