package raftlog

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var seedFlag = flag.Uint64("seed", 0, "seed of the randomised tests; 0 draws one")

// random returns a generator whose seed is printed, so that a failure can be
// repeated with -seed.
func random(tb testing.TB) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	tb.Logf("repeat with -seed=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// after lets fake time pass.
func after(d time.Duration) { <-time.After(d) }
