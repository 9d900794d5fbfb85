package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

// Events of a registration, besides those of the SDK: see onEvent.
const (
	eventRegistered       = "registered"
	eventHeld             = "held"
	eventHoldFailed       = "hold_failed"
	eventDeregistering    = "deregistering"
	eventDeregistered     = "deregistered"
	eventDeregisterFailed = "deregister_failed"
)

// registrationEvent is a line of "register -json".
type registrationEvent struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	Group string    `json:"group"`
	ID    string    `json:"id"`
	Addr  string    `json:"addr"`
	Hold  string    `json:"hold"`  // how long the member is held; 0s if it is not
	Error string    `json:"error"` // empty if nothing failed
}

// registrationReporter reports the events of a registration: as text on stderr, or as lines of
// JSON. Those are on stdout, which a command has for itself if there is one.
type registrationReporter struct {
	service sdk.Service
	words   io.Writer
	lines   io.Writer // nil: words

	mu sync.Mutex // one line at a time: the SDK's events come beside our own
}

func newRegistrationReporter(e *env, c *cli.Context, s sdk.Service, command *child) *registrationReporter {
	t := &registrationReporter{service: s, words: e.stderr}
	switch {
	case !c.Bool(flagJSON):
	case command == nil:
		t.lines = e.stdout
	default:
		t.lines = e.stderr
	}
	return t
}

func (t *registrationReporter) name() string { return t.service.Group + "/" + t.service.ID }

func (t *registrationReporter) report(event string, hold time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines == nil {
		fmt.Fprint(t.words, t.text(event, hold, err))
		return
	}
	line := registrationEvent{
		Time: time.Now().UTC(), Event: event, Group: t.service.Group, ID: t.service.ID, Addr: t.service.Addr, Hold: hold.String(),
	}
	if err != nil {
		line.Error = plain(err)
	}
	_ = writeJSONLine(t.lines, line) // a closed pipe does not end the registration
}

// text is a line of words; empty for what the error at the end says.
func (t *registrationReporter) text(event string, hold time.Duration, err error) string {
	switch event {
	case eventRegistered:
		return fmt.Sprintf("%s registered at %s\n", t.name(), t.service.Addr)
	case eventHeld:
		return fmt.Sprintf("%s held for %v\n", t.name(), hold)
	case eventHoldFailed:
		return fmt.Sprintf("registry: %s could not be held: %s\n", t.name(), plain(err))
	case eventDeregistering:
		return fmt.Sprintf("deregistering %s …\n", t.name())
	case eventDeregistered:
		return t.name() + " deregistered\n"
	case sdk.EventUnreachable.String():
		if !errors.Is(err, sdk.ErrWrongCluster) {
			return fmt.Sprintf("registry: %s is not renewed, and goes on trying: %s\n", t.name(), plain(err))
		}
		return fmt.Sprintf("registry: %s: the nodes that answer are of another cluster; if the cluster was formed anew, "+
			"restart this command to register there\n", t.name())
	case sdk.EventRenewed.String():
		return t.name() + " renewed\n"
	case sdk.EventLost.String():
		return fmt.Sprintf("registry: %s lost its lease, and registers again\n", t.name())
	case sdk.EventReregistered.String():
		return t.name() + " registered again\n"
	case eventDeregisterFailed:
		return fmt.Sprintf("registry: %s not deregistered, it goes when its TTL or its hold is over: %s\n", t.name(), plain(err))
	}
	return ""
}

// onEvent reports an event of the SDK.
func (t *registrationReporter) onEvent(ev sdk.Event) {
	switch ev.Kind {
	case sdk.EventUnreachable, sdk.EventRenewed, sdk.EventLost, sdk.EventReregistered:
		t.report(ev.Kind.String(), 0, ev.Err)
	case sdk.EventEnded:
		if !errors.Is(ev.Err, sdk.ErrClosed) && !errors.Is(ev.Err, sdk.ErrHeld) { // the registration is lost
			t.report(ev.Kind.String(), 0, ev.Err)
		}
	}
}

// withoutEvents leaves the SDK's lines of events out of the log: the reporter has them.
type withoutEvents struct{ slog.Handler }

func (h withoutEvents) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "registration" {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}
