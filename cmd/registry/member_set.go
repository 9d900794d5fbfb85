package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

func memberCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "member",
		Usage:       "change a member without its process",
		Description: "What would move keys shows them, " + confirmRule,
		Category:    categoryService,
		Subcommands: []*cli.Command{{
			Name:      "set",
			Usage:     "set a member's weight or state (active, draining or held)",
			ArgsUsage: memberArgs,
			Flags: memberFlags(
				&cli.IntFlag{Name: flagWeight, Usage: "1–1000"},
				&cli.StringFlag{Name: flagState, Usage: "active, draining (owns no keys) or held (keeps them while it is away, with -for)"},
				forFlag(),
			),
			Action: func(c *cli.Context) error { return memberSet(e, c) },
		}, memberHoldCommand(e), memberStateCommand(e, "drain", sdk.StateDraining,
			"take a member's keys away and leave it registered",
			"Each key goes to its next owner, where it would be after a deregistration; the\n"+
				"member finishes its work and may then be deregistered without moving a key.",
		), memberStateCommand(e, "resume", sdk.StateActive,
			"end a drain or a hold: the member takes part again",
			"A member that is held and has no process must register within its TTL.",
		)},
	}
}

func memberHoldCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "hold",
		Usage:     "hold a member while its process restarts: it keeps its keys",
		ArgsUsage: memberArgs + " -for TIME",
		Description: "Requests for its keys go to their fallbacks. The time counts from the last\n" +
			"heartbeat. The hold ends when the id is registered again, at any address;\n" +
			"otherwise the member is removed at its end. Its process may end during the hold:\n" +
			"the SDK and register leave the member held.",
		Flags: memberFlags(forFlag()),
		Action: func(c *cli.Context) error {
			if err := require(c, flagGroup, flagID, flagFor); err != nil {
				return err
			}
			hold, err := holdTime(c)
			if err != nil {
				return err
			}
			held := sdk.StateHeld
			return updateMember(e, c, sdk.MemberUpdate{State: &held, Hold: hold})
		},
	}
}

const (
	flagState = "state"
	flagFor   = "for"
)

func forFlag() cli.Flag {
	return &cli.DurationFlag{Name: flagFor, Usage: "how long it is held, 1s–24h, or the member's ttl if that is longer"}
}

// holdTime is -for.
func holdTime(c *cli.Context) (time.Duration, error) {
	hold := c.Duration(flagFor)
	if hold < minHold || hold > maxHold {
		return 0, usageErrorf("-%s is %v, want 1s to 24h", flagFor, hold)
	}
	return hold, nil
}

func memberStateCommand(e *env, name string, state sdk.State, usage, description string) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: memberArgs, Description: description, Flags: memberFlags(),
		Action: func(c *cli.Context) error {
			if err := require(c, flagGroup, flagID); err != nil {
				return err
			}
			return updateMember(e, c, sdk.MemberUpdate{State: &state})
		},
	}
}

// memberArgs are the flags that name a member, in the usage of a command.
const memberArgs = "-group GROUP -id ID"

func memberFlags(more ...cli.Flag) []cli.Flag {
	return clientFlags(append([]cli.Flag{
		&cli.StringFlag{Name: flagGroup, Usage: "the member's group"},
		&cli.StringFlag{Name: flagID, Usage: "the member's id"},
		yesFlag(), jsonFlag(),
	}, more...)...)
}

func memberSet(e *env, c *cli.Context) error {
	if err := require(c, flagGroup, flagID); err != nil {
		return err
	}
	update, err := memberUpdate(c)
	if err != nil {
		return err
	}
	return updateMember(e, c, update)
}

func updateMember(e *env, c *cli.Context, update sdk.MemberUpdate) error {
	if _, err := positional(c); err != nil {
		return err
	}
	group, id := c.String(flagGroup), c.String(flagID)
	changes := func(l *link) error { return confirmMember(e, c, l, group, id, editOf(update)) }
	return change(c, changes, func(ctx context.Context, l *link) error {
		revision, err := l.UpdateMember(ctx, group, id, update)
		if err != nil {
			return err
		}
		return printDone(e, c, map[string]any{"group": group, "id": id, "revision": revision},
			"%s/%s %s, group revision %d", group, id, updateText(update), revision)
	})
}

// updateText says what a member is after an update, which may have been so before.
func updateText(u sdk.MemberUpdate) string {
	var is []string
	if u.State != nil {
		is = append(is, "is "+stateText(sdk.Member{State: *u.State, Hold: u.Hold}))
	}
	if u.Weight != nil {
		is = append(is, fmt.Sprintf("has weight %d", *u.Weight))
	}
	return andList(is)
}

// editOf makes an update to a member of a ring.
func editOf(u sdk.MemberUpdate) func(*ring.Member) {
	return func(m *ring.Member) {
		if u.Weight != nil {
			m.Weight = *u.Weight
		}
		if u.State != nil {
			m.State = ringState(*u.State)
		}
	}
}

func memberUpdate(c *cli.Context) (u sdk.MemberUpdate, err error) {
	if c.IsSet(flagWeight) {
		w := c.Int(flagWeight)
		u.Weight = &w
	}
	if c.IsSet(flagState) {
		s, err := parseState(c.String(flagState))
		if err != nil {
			return u, err
		}
		u.State = &s
	}
	if held := u.State != nil && *u.State == sdk.StateHeld; held != c.IsSet(flagFor) {
		return u, usageErrorf("%s: -%s held and -%s are given together", c.Command.HelpName, flagState, flagFor).
			withHint("without its heartbeats a member that is held for no time is removed after its ttl")
	}
	if c.IsSet(flagFor) {
		if u.Hold, err = holdTime(c); err != nil {
			return u, err
		}
	}
	if u.Weight == nil && u.State == nil {
		return u, usageErrorf("%s: nothing to set, want -weight or -state", c.Command.HelpName)
	}
	return u, nil
}

func parseState(name string) (sdk.State, error) {
	for _, s := range []sdk.State{sdk.StateActive, sdk.StateDraining, sdk.StateHeld} {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, usageErrorf("-state is %q, want active, draining or held", name)
}
