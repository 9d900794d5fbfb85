package storetest

import (
	"os"
	"testing"
)

// Long reports whether tests that get better with their length take the full
// one: REGISTRY_LONG_TESTS=1 asks for it, as continuous integration does, and
// -short forbids it.
func Long() bool { return !testing.Short() && os.Getenv("REGISTRY_LONG_TESTS") != "" }
