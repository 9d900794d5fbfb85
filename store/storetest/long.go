package storetest

import (
	"flag"
	"os"
	"testing"
)

// Long reports whether tests that get better with their length take the full
// one: REGISTRY_LONG_TESTS=1 asks for it, as continuous integration does, and
// -short forbids it.
func Long() bool { return !testing.Short() && os.Getenv("REGISTRY_LONG_TESTS") != "" }

// Overlap runs four tests at a time. TestMain calls it in packages whose tests mostly
// wait for timers, unless -parallel is given, or -short, as with the race detector, which
// needs the processors.
func Overlap() {
	flag.Parse()
	given := testing.Short()
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "4") // a valid value
	}
}
