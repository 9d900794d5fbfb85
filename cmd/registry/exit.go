package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/ring/plot"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store"
)

// Exit codes. They are part of the interface: scripts decide by them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnavailable = 5
	exitUnknown     = 6
	exitCheck       = 7
	exitDenied      = 8
	exitNoExec      = 126
	exitNoCommand   = 127
	exitInterrupted = 130
)

const exitCodesText = `EXIT CODES
     0  done
     1  failed, for a reason not listed below, such as a limit of the whole cluster
     2  usage: unknown command or flag, or a value or argument outside its limits
     3  not found: unknown group, member, node or token, or a group without
        members that own keys
     4  conflict: the id is held by another process, this process lost its
        registration, the group changed in between or has members, a node does
        not fit the cluster or was not taken in, the nodes are of another cluster
        than the one of -cluster, tokens are on already or still off, it is the
        last administrator's token, or the cluster's feature level does not allow it
     5  unavailable: no node answered in time, no leader, or not fresh enough
     6  outcome unknown: the write may or may not take effect; run it again
     7  a check said no: digests differ, a plan moves more than -max-moved, or a
        change was not confirmed
     8  not allowed: there is no valid token, the token does not allow it, or the
        registration belongs to another token
   126  register -- CMD: the command cannot be executed
   127  register -- CMD: the command was not found
   130  interrupted before the answer came

With "register -- CMD" the exit code is otherwise that of the command, or
128 + the number of the signal that ended it.
`

// exitError is an error with an exit code and, maybe, a line that helps.
type exitError struct {
	code int
	err  error // nil: nothing is printed
	hint string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) *exitError {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

func checkErrorf(format string, args ...any) *exitError {
	return &exitError{code: exitCheck, err: fmt.Errorf(format, args...)}
}

func (e *exitError) withHint(format string, args ...any) *exitError {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// onUsageError turns what the flag parser says into a usage error. It is called
// for unknown flags and for values that do not parse.
func onUsageError(c *cli.Context, err error, _ bool) error {
	e := &exitError{code: exitUsage, err: err}
	return e.withHint("see %s -help", c.Command.HelpName)
}

// sentinelCodes says which exit code stands for which error. The first that
// matches counts.
var sentinelCodes = []struct {
	code int
	errs []error
}{
	{exitUsage, []error{
		sdk.ErrInvalidArgument, registry.ErrConfig,
		ring.ErrParams, ring.ErrMember, ring.ErrShare, ring.ErrChange, ring.ErrTooLarge, plot.ErrSize,
	}},
	{exitNotFound, []error{sdk.ErrUnknownGroup, sdk.ErrEmptyGroup, sdk.ErrUnknownMember, sdk.ErrUnknownNode, sdk.ErrUnknownToken}},
	{exitConflict, []error{sdk.ErrConflict, sdk.ErrFenced, sdk.ErrRevisionMismatch, sdk.ErrGroupNotEmpty, sdk.ErrMembership, store.ErrMembership, sdk.ErrWrongCluster, sdk.ErrTokensOff, sdk.ErrLastAdmin, sdk.ErrFeatureLevel}},
	{exitDenied, []error{sdk.ErrUnauthenticated, sdk.ErrPermissionDenied, sdk.ErrNotOwner}},
	{exitUnknown, []error{sdk.ErrOutcomeUnknown}},
	{exitInterrupted, []error{context.Canceled}},
	{exitUnavailable, []error{sdk.ErrNoLeader, sdk.ErrNotReady, sdk.ErrBusy, sdk.ErrStale, sdk.ErrUnavailable, context.DeadlineExceeded}},
}

// exitCode returns the code that stands for err.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if own, ok := errors.AsType[*exitError](err); ok {
		return own.code
	}
	for _, s := range sentinelCodes {
		for _, sentinel := range s.errs {
			if errors.Is(err, sentinel) {
				return s.code
			}
		}
	}
	return exitFailure
}

// report writes err and its hint to w and returns the exit code.
func report(w io.Writer, err error) int {
	code := exitCode(err)
	own, _ := errors.AsType[*exitError](err)
	if err == nil || (own != nil && own.err == nil) {
		return code
	}
	text := plain(err)
	if code == exitInterrupted {
		text = "interrupted" // what it was about to say is not why it ended
	}
	fmt.Fprintf(w, "registry: %s\n", text)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "  %s\n", hint)
	}
	return code
}

// hintOf is the line that helps with an error: its own, or one for its kind.
func hintOf(err error) string {
	if own, ok := errors.AsType[*exitError](err); ok && own.hint != "" {
		return own.hint
	}
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return refused.hint
	}
	if errors.Is(err, sdk.ErrUnauthenticated) {
		return tokenHint
	}
	if errors.Is(err, sdk.ErrWrongCluster) {
		return "-cluster or REGISTRY_CLUSTER names the cluster whose nodes are asked"
	}
	return ""
}

// plain is an error's text without the name of this program, with which the
// SDK's errors begin, and those that name a command; and without the SDK's call,
// which is not what the user typed.
func plain(err error) string {
	text := err.Error()
	if of, ok := errors.AsType[*sdk.Error](err); ok {
		text = strings.Replace(text, of.Error(), of.Message, 1)
	}
	text = strings.TrimPrefix(text, appName+": ")
	return strings.TrimPrefix(text, appName+" ")
}
