// Package seed seeds the randomised tests of this module. It imports no other package
// of it, so the tests of any may import it.
package seed

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "seed of the randomised tests; 0 draws one")

// Rand returns a generator and logs its seed, so that a failure can be repeated with
// -seed.
func Rand(tb testing.TB) *rand.Rand {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	tb.Logf("repeat with -seed=%d", n)
	return rand.New(rand.NewPCG(n, 1))
}
