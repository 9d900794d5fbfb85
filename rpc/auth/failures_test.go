package auth

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A source is limited from one failure too many on, until its window ends, and others
// are not.
func TestFailuresAreLimitedBySource(t *testing.T) {
	f, start := NewFailures(), time.Now()
	for i := range MaxFailures {
		if err := f.Add("10.0.0.1", start.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatalf("failure %d: %v", i+1, err)
		}
	}
	for range 1000 {
		err := f.Add("10.0.0.1", start.Add(FailureWindow-10*time.Second))
		if err == nil || err.Wait != 10*time.Second || !errors.Is(err, ErrUnauthenticated) {
			t.Fatalf("one too many: %v", err)
		}
		if !strings.Contains(err.Error(), "20 wrong tokens within 1m0s from 10.0.0.1") || !strings.Contains(err.Error(), "in 10s") {
			t.Fatal(err)
		}
	}
	if err := f.Add("10.0.0.2", start); err != nil {
		t.Errorf("another source: %v", err)
	}
	if err := f.Add("10.0.0.1", start.Add(FailureWindow)); err != nil {
		t.Errorf("after the window: %v", err)
	}
}

// As many sources as there may be addresses take no more memory than maxSources.
func TestFailuresForgetSources(t *testing.T) {
	f, now := NewFailures(), time.Now()
	for i := range 10 * maxSources {
		f.Add(fmt.Sprint(i), now)
		f.Add("often", now)
	}
	if f.Len() != maxSources {
		t.Errorf("%d sources are remembered, want %d", f.Len(), maxSources)
	}
	if f.Add("often", now) == nil {
		t.Error("a source that fails again and again was forgotten")
	}
}

func TestReasonOf(t *testing.T) {
	text, _, _ := registrypb.MakeToken()
	for _, tc := range []struct {
		headers []string
		err     error
		want    Reason
	}{
		{nil, ErrUnauthenticated, Missing},
		{[]string{"Basic x"}, ErrUnauthenticated, Malformed},
		{[]string{"Bearer " + text}, fmt.Errorf("wrapped: %w", errUnknown), Unknown},
		{[]string{"Bearer " + text}, &ExpiredError{Name: "a"}, Expired},
		{[]string{"Bearer " + text}, &LimitedError{}, Limited},
	} {
		if got := ReasonOf(tc.headers, tc.err); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.err, got, tc.want)
		}
		if !errors.Is(tc.err, ErrUnauthenticated) {
			t.Errorf("%v is not ErrUnauthenticated", tc.err)
		}
	}
}
