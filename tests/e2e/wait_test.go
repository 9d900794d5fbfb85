package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/werbenhu/registry/tests/ports"
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

// freePorts returns n free ports in a row.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	row, err := ports.Free(n)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
