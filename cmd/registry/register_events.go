package main

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

// What becomes of a seat. The SDK tells of more: see told.
const (
	seatRegistered       = "registered"
	seatHeld             = "held"
	seatHoldFailed       = "hold_failed"
	seatDeregistering    = "deregistering"
	seatDeregistered     = "deregistered"
	seatDeregisterFailed = "deregister_failed"
)

// seatEvent is a line of "register -json".
type seatEvent struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	Group string    `json:"group"`
	ID    string    `json:"id"`
	Addr  string    `json:"addr"`
	Hold  string    `json:"hold"`  // how long the seat is held; 0s if it is not
	Error string    `json:"error"` // empty if nothing failed
}

// seatTeller tells what becomes of a seat: in words on stderr, or by lines of
// JSON. Those are on stdout, which a command has for itself if there is one.
type seatTeller struct {
	service sdk.Service
	words   io.Writer
	lines   io.Writer // nil: words

	mu sync.Mutex // one line at a time: the SDK's events come beside our own
}

func newSeatTeller(e *env, c *cli.Context, s sdk.Service, command *child) *seatTeller {
	t := &seatTeller{service: s, words: e.stderr}
	switch {
	case !c.Bool(flagJSON):
	case command == nil:
		t.lines = e.stdout
	default:
		t.lines = e.stderr
	}
	return t
}

func (t *seatTeller) name() string { return t.service.Group + "/" + t.service.ID }

func (t *seatTeller) tell(event string, hold time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines == nil {
		fmt.Fprint(t.words, t.text(event, hold, err))
		return
	}
	line := seatEvent{
		Time: time.Now().UTC(), Event: event, Group: t.service.Group, ID: t.service.ID, Addr: t.service.Addr, Hold: hold.String(),
	}
	if err != nil {
		line.Error = plain(err)
	}
	_ = writeJSONLine(t.lines, line) // the seat outlives who reads of it
}

// text is a line of words; empty for what the SDK's log says.
func (t *seatTeller) text(event string, hold time.Duration, err error) string {
	switch event {
	case seatRegistered:
		return fmt.Sprintf("%s registered at %s\n", t.name(), t.service.Addr)
	case seatHeld:
		return fmt.Sprintf("%s held for %v\n", t.name(), hold)
	case seatHoldFailed:
		return fmt.Sprintf("registry: %s could not be held: %s\n", t.name(), plain(err))
	case seatDeregistering:
		return fmt.Sprintf("deregistering %s …\n", t.name())
	case seatDeregistered:
		return t.name() + " deregistered\n"
	case sdk.EventUnreachable.String():
		if errors.Is(err, sdk.ErrWrongCluster) {
			return fmt.Sprintf("registry: %s: the nodes that answer are of another cluster; if the cluster was formed anew, "+
				"restart this command to register there\n", t.name())
		}
	case seatDeregisterFailed:
		return fmt.Sprintf("registry: %s not deregistered, it goes when its TTL is over: %s\n", t.name(), plain(err))
	}
	return ""
}

// told passes on what the SDK tells.
func (t *seatTeller) told(ev sdk.Event) {
	switch ev.Kind {
	case sdk.EventUnreachable, sdk.EventRenewed, sdk.EventLost, sdk.EventReregistered:
		t.tell(ev.Kind.String(), 0, ev.Err)
	case sdk.EventEnded:
		if !errors.Is(ev.Err, sdk.ErrClosed) && !errors.Is(ev.Err, sdk.ErrHeld) { // the seat is lost
			t.tell(ev.Kind.String(), 0, ev.Err)
		}
	}
}
