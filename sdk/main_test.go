package sdk

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/sdk/internal/sdktest"
)

func TestMain(m *testing.M) {
	sdktest.RefuseProxies()
	goleak.VerifyTestMain(m)
}

const within = sdktest.Within

var (
	testContext = sdktest.Context
	eventually  = sdktest.Eventually
)

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
