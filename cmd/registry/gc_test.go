package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 400}, {12 << 20, 400}, {20 << 20, 200}, {48 << 20, 100}, {1 << 30, 100}} {
		if got := gcPercent(c.live); got != c.want {
			t.Errorf("%d MiB live: %d %%, want %d", c.live>>20, got, c.want)
		}
	}
}

func gogc() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

// The percentage follows what is live, by itself, unless the user has set it.
func TestTuneGC(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })

	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv("GOGC", "")
		t.Setenv(name, "1GiB")
		tuneGC()
		if percent := gogc(); percent != 100 {
			t.Errorf("with %s: %d %%, want what it was", name, percent)
		}
	}

	t.Setenv("GOMEMLIMIT", "")
	waitFor := func(what string, fits func(int) bool) {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); ; {
			runtime.GC()
			percent := gogc()
			if fits(percent) {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("%s: %d %%", what, percent)
			}
		}
	}
	tuneGC()
	waitFor("little is live", func(percent int) bool { return percent > 100 })
	held := make([]byte, 2*minHeadroom)
	waitFor("much is live", func(percent int) bool { return percent == 100 })
	runtime.KeepAlive(held)
	waitFor("little is live again", func(percent int) bool { return percent > 100 })
}
