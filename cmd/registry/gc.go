package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// minHeadroom is how much may be allocated between two garbage collections when little is
// live. Go's default is as much as is live: a node with a small state and many calls would
// collect many times a second.
const minHeadroom = 48 << 20

// tuneGC sets the garbage collector's percentage by what is live, now and after each
// collection, unless the user has set it (GOGC) or a limit (GOMEMLIMIT).
func tuneGC() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		followGC(100)
	}
}

func followGC(current int) {
	sizes := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(sizes)
	percent := gcPercent(sizes[0].Value.Uint64() + sizes[1].Value.Uint64() + sizes[2].Value.Uint64())
	if percent != current { // setting it stops all goroutines for a moment
		debug.SetGCPercent(percent)
	}
	// Unreachable at once, so the next collection calls it.
	runtime.AddCleanup(new([64]byte), followGC, percent)
}

// gcPercent returns the growth of the heap in percent of what is live, 100 to 400.
func gcPercent(live uint64) int {
	percent := minHeadroom * 100 / max(live, 1)
	return int(min(max(100, percent/50*50), 400)) // in steps, so that it seldom changes
}
