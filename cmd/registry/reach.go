package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/sdk"
)

// dialTimeout bounds one attempt to connect.
const dialTimeout = 3 * time.Second

// reach knows how the last attempt to connect to each address went.
type reach struct {
	given  []string
	hint   string             // what to do when none of them can be reached
	config func() *tls.Config // of the connections; nil: no TLS

	mu      sync.Mutex // guards all below
	last    map[string]error
	refused time.Time     // since when no address can be reached; zero if one can, or may
	changed chan struct{} // closed at the next change of refused
}

func newReach(given []string) *reach {
	return &reach{given: given, last: map[string]error{}, changed: make(chan struct{})}
}

// startHint is for a command that was given no address.
const startHint = `start one with "registry dev", or name the nodes by -registries or REGISTRY_ADDRS`

// hintUnless sets the hint unless one of the flags gave the addresses.
func (r *reach) hintUnless(c *cli.Context, flags ...string) {
	if !slices.ContainsFunc(flags, c.IsSet) {
		r.hint = startHint
	}
}

// dial connects for the SDK. The handshake that follows notes a success.
func (r *reach) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil && !errors.Is(err, context.Canceled) {
		r.note(addr, err)
	}
	return conn, err
}

func (r *reach) note(addr string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[addr] = err
	was := r.refused
	switch all := r.allRefuseLocked(); {
	case !all:
		r.refused = time.Time{}
	case r.refused.IsZero():
		r.refused = time.Now()
	}
	if r.refused != was {
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// allRefuseLocked is true when every address that was given, and every one that
// was learnt and tried, refused at the last attempt.
func (r *reach) allRefuseLocked() bool {
	for _, err := range r.last {
		if err == nil {
			return false
		}
	}
	return !slices.ContainsFunc(r.given, func(addr string) bool { return r.last[addr] == nil })
}

func (r *reach) state() (refused time.Time, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused, r.changed
}

// untilRefused returns a context that also ends, with a refusedError as its
// cause, when all addresses refuse and the time is notBefore.
func (r *reach) untilRefused(ctx context.Context, notBefore time.Time) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		timer := time.NewTimer(time.Until(notBefore))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		for {
			refused, changed := r.state()
			if !refused.IsZero() {
				cancel(r.refusedByAll())
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// sayAfter says what is being tried if that is not stopped before.
func (r *reach) sayAfter(d time.Duration, w io.Writer, timeout time.Duration) (stop func()) {
	said := make(chan struct{})
	timer := time.AfterFunc(d, func() {
		defer close(said)
		fmt.Fprintf(w, "registry: no answer yet, trying for %v: %s\n", timeout, strings.Join(r.lines(), ", "))
	})
	return func() {
		if !timer.Stop() {
			<-said // w is the caller's again
		}
	}
}

// lines says of each address how the last attempt went.
func (r *reach) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, addr := range r.given {
		err, tried := r.last[addr]
		switch {
		case !tried:
			out = append(out, addr)
		case err != nil:
			out = append(out, addr+": "+dialReason(err))
		default:
			out = append(out, addr+" (connected)")
		}
	}
	return out
}

// dialReason is the last part of what the net package says: the rest repeats
// the address.
func dialReason(err error) string {
	if tls, ok := errors.AsType[*certs.HandshakeError](err); ok {
		return tls.Error()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.Err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}

// explain is err with one line for each address if none can be reached now.
func (r *reach) explain(err error) error {
	if refused, _ := r.state(); refused.IsZero() || errors.Is(err, sdk.ErrOutcomeUnknown) {
		return err
	}
	return &exitError{code: exitCode(err), err: r.refusedByAll()}
}

// reason says of an address why the last attempt failed; empty: it did not.
func (r *reach) reason(addr string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.last[addr]; err != nil {
		return dialReason(err)
	}
	return ""
}

// refusedError says that no address could be reached.
type refusedError struct {
	lines []string
	hint  string
}

func (r *reach) refusedByAll() *refusedError { return &refusedError{r.lines(), r.advice()} }

// advice is the hint for the first address whose handshake failed, or the general one.
func (r *reach) advice() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, addr := range r.given {
		if hint := tlsHint(r.last[addr]); hint != "" {
			return hint
		}
	}
	return r.hint
}

func (e *refusedError) Error() string {
	return "no node can be reached\n  " + strings.Join(e.lines, "\n  ")
}

func (e *refusedError) Unwrap() error { return sdk.ErrUnavailable }

// shortened is err, or that no address could be reached if this ended the call.
// A write that may have been carried out keeps its error.
func shortened(ctx context.Context, err error) error {
	refused, ok := errors.AsType[*refusedError](context.Cause(ctx))
	if ok && errors.Is(err, context.Canceled) && !errors.Is(err, sdk.ErrOutcomeUnknown) {
		return refused
	}
	return err
}
