package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

// diagnoseWait bounds the question why a call failed: a node asks the others for
// up to 2 s.
const diagnoseWait = 3 * time.Second

// diagnosed adds to the error of a call what a node knows of its cause: that
// there is no leader, or that no node has reached the index of -at-least.
func (l *link) diagnosed(c *cli.Context, err error) error {
	needsLeader := errors.Is(err, sdk.ErrNoLeader) || errors.Is(err, sdk.ErrOutcomeUnknown)
	index := c.Uint64(flagAtLeast)
	needsIndex := index > 0 && errors.Is(err, sdk.ErrUnavailable)
	if !needsLeader && !needsIndex || c.Context.Err() != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, min(c.Duration(flagTimeout), diagnoseWait))
	defer cancel()
	ctx, stop := l.reach.untilRefused(ctx, time.Time{})
	defer stop()
	status, failed := l.Status(ctx, "")
	if failed != nil {
		return err
	}
	if why := noLeader(status); needsLeader && why != "" {
		return (&exitError{code: exitCode(err), err: err}).withHint("%s", why)
	}
	if at := allBelow(status, index); needsIndex && at != "" {
		return &exitError{code: exitUnavailable, err: fmt.Errorf("no node has applied index %d within %v: %s", index, c.Duration(flagTimeout), at)}
	}
	return err
}

// noLeader says why the cluster has no leader; empty: it has one.
func noLeader(s sdk.Status) string {
	if s.Leader != "" {
		return ""
	}
	voters, reached := 0, 0
	for _, n := range s.Nodes {
		if n.Voter {
			voters++
			if n.Role != "" {
				reached++
			}
		}
	}
	switch {
	case voters == 0:
		return "no leader: the node is in no cluster yet"
	case reached <= voters/2:
		return fmt.Sprintf("no leader: only %d of %d voters can be reached", reached, voters)
	}
	return fmt.Sprintf("no leader: %d of %d voters can be reached, so one should be elected soon", reached, voters)
}

// allBelow says which index each node has applied; empty: one has reached index.
func allBelow(s sdk.Status, index uint64) string {
	at := make([]string, len(s.Nodes))
	for i, n := range s.Nodes {
		switch {
		case n.Role == "":
			at[i] = n.ID + " does not answer"
		case n.AppliedIndex >= index:
			return ""
		default:
			at[i] = fmt.Sprintf("%s is at %d", n.ID, n.AppliedIndex)
		}
	}
	return strings.Join(at, ", ")
}
