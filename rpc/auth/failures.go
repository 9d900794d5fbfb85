package auth

import (
	"container/list"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Reason is why a call counts as unauthenticated.
type Reason string

// All reasons.
const (
	Missing   Reason = "missing"   // no token
	Malformed Reason = "malformed" // no text of a token
	Unknown   Reason = "unknown"   // no such token, or it was revoked, or its secret is another one
	Expired   Reason = "expired"   // a valid secret, at another time
	Limited   Reason = "limited"   // malformed or unknown, after too many of them
)

// Reasons are all values of Reason.
var Reasons = []Reason{Missing, Malformed, Unknown, Expired, Limited}

// ReasonOf classifies an ErrUnauthenticated of a call with these headers.
func ReasonOf(headers []string, err error) Reason {
	if _, ok := errors.AsType[*LimitedError](err); ok {
		return Limited
	}
	if _, ok := errors.AsType[*ExpiredError](err); ok {
		return Expired
	}
	switch {
	case len(headers) == 0:
		return Missing
	case errors.Is(err, errUnknown):
		return Unknown
	}
	return Malformed
}

// ExpiredError is an ErrUnauthenticated of a token that was valid.
type ExpiredError struct {
	Name string
	At   time.Time
}

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("%s: the token %q expired at %s", ErrUnauthenticated, e.Name, e.At.UTC().Format(time.RFC3339))
}

// Is makes errors.Is find ErrUnauthenticated.
func (e *ExpiredError) Is(target error) bool { return target == ErrUnauthenticated }

// Limits of wrong tokens.
const (
	// MaxFailures are a source's in one window.
	MaxFailures = 20
	// FailureWindow begins with the first one.
	FailureWindow = time.Minute
	// maxSources are remembered; the one that failed longest ago is forgotten first.
	maxSources = 4096
)

// LimitedError is an ErrUnauthenticated after too many wrong tokens from a source.
type LimitedError struct {
	Source string
	Wait   time.Duration // until the window ends
}

func (e *LimitedError) Error() string {
	return fmt.Sprintf("%s: more than %s from %s; a wrong one is looked at again in %s",
		ErrUnauthenticated, e.Limit(), e.Source, e.Wait.Round(time.Second))
}

// Limit is the limit that was reached.
func (e *LimitedError) Limit() string {
	return fmt.Sprintf("%d wrong tokens within %s", MaxFailures, FailureWindow)
}

// Is makes errors.Is find ErrUnauthenticated.
func (e *LimitedError) Is(target error) bool { return target == ErrUnauthenticated }

// Failures counts wrong tokens by their source. It never sees a valid one, which is
// looked up first, so that it harms no honest client behind the same address.
//
// Example: 21 wrong tokens at t = 0 s … 20 s. The 21st and all until t = 60 s get a
// LimitedError, whatever they are.
type Failures struct {
	mu      sync.Mutex // guards all
	windows map[string]*list.Element
	recent  *list.List // of *window, the one that failed longest ago first
}

type window struct {
	source string
	ends   time.Time
	failed int
}

// NewFailures returns counts of nothing.
func NewFailures() *Failures {
	return &Failures{windows: make(map[string]*list.Element), recent: list.New()}
}

// Add counts a malformed or unknown token, and returns a LimitedError if there were too
// many, or nil.
func (f *Failures) Add(source string, now time.Time) *LimitedError {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.windowLocked(source)
	if !now.Before(w.ends) {
		w.ends, w.failed = now.Add(FailureWindow), 0
	}
	if w.failed++; w.failed <= MaxFailures {
		return nil
	}
	return &LimitedError{Source: source, Wait: w.ends.Sub(now)}
}

// windowLocked is the window of a source, which has ended if the source is new.
func (f *Failures) windowLocked(source string) *window {
	e := f.windows[source]
	if e != nil {
		f.recent.MoveToBack(e)
		return e.Value.(*window)
	}
	if f.recent.Len() == maxSources {
		oldest := f.recent.Remove(f.recent.Front()).(*window)
		delete(f.windows, oldest.source)
	}
	w := &window{source: source}
	f.windows[source] = f.recent.PushBack(w)
	return w
}

// Len is the number of sources that are remembered.
func (f *Failures) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.windows)
}
