package sdk

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// A proxy that refuses connections: what asks it, fails. Addresses of
	// loopback are exempt.
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		os.Setenv(name, "http://127.0.0.1:1")
	}
	os.Setenv("NO_PROXY", "none.example")
	goleak.VerifyTestMain(m)
}

// within bounds a test's wait; nothing here should come near it.
const within = 30 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls: for what the fake cluster counts.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// over waits for a registration's end and returns why.
func over(t *testing.T, r *Registration) error {
	t.Helper()
	select {
	case <-r.Done():
	case <-testContext(t).Done():
		t.Fatal("the registration goes on")
	}
	return r.Err()
}

// recorder collects a registration's events.
type recorder chan Event

func newRecorder() recorder { return make(recorder, 64) }

func (r recorder) on(e Event) { r <- e }

// want skips to the next event of that kind.
func (r recorder) want(t *testing.T, kind EventKind) Event {
	t.Helper()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	for {
		select {
		case e := <-r:
			if e.Kind == kind {
				return e
			}
		case <-timeout.C:
			t.Fatalf("no event %v", kind)
		}
	}
}

// next wants the next event to be of that kind, and its error to be cause.
func (r recorder) next(t *testing.T, kind EventKind, cause error) {
	t.Helper()
	select {
	case e := <-r:
		if e.Kind != kind || !errors.Is(e.Err, cause) {
			t.Errorf("event %v, %v; want %v, %v", e.Kind, e.Err, kind, cause)
		}
	case <-time.After(within):
		t.Fatalf("no event; want %v, %v", kind, cause)
	}
}
