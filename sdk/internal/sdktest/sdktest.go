// Package sdktest has what the tests of the SDK's packages share.
package sdktest

import (
	"context"
	"os"
	"testing"
	"time"
)

// Within bounds a test's wait; nothing should come near it.
const Within = 30 * time.Second

// Context returns a context of the test that ends after Within.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Within)
	t.Cleanup(cancel)
	return ctx
}

// Eventually polls, for what other goroutines do or a fake counts.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(Within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// RefuseProxies names a proxy that refuses connections in the environment, so that
// what asks it fails. Addresses of loopback are exempt.
func RefuseProxies() {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		os.Setenv(name, "http://127.0.0.1:1")
	}
	os.Setenv("NO_PROXY", "none.example")
}
