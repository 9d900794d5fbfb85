package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

// memberJSON is a member as every command prints it.
type memberJSON struct {
	ID            string            `json:"id"`
	Addr          string            `json:"addr"`
	Weight        int               `json:"weight"`
	State         string            `json:"state"`
	TTL           string            `json:"ttl"`
	Meta          map[string]string `json:"meta,omitempty"`
	CreatedIndex  uint64            `json:"created_index"`
	ModifiedIndex uint64            `json:"modified_index"`
	RegisteredAt  *time.Time        `json:"registered_at,omitempty"`
}

func toMemberJSON(m sdk.Member) memberJSON {
	out := memberJSON{
		ID: m.ID, Addr: m.Addr, Weight: m.Weight, State: m.State.String(), TTL: m.TTL.String(),
		Meta: m.Meta, CreatedIndex: m.CreatedIndex, ModifiedIndex: m.ModifiedIndex,
	}
	if !m.RegisteredAt.IsZero() {
		at := m.RegisteredAt.UTC()
		out.RegisteredAt = &at
	}
	return out
}

func toMembersJSON(members []sdk.Member) []memberJSON {
	out := make([]memberJSON, len(members))
	for i, m := range members {
		out[i] = toMemberJSON(m)
	}
	return out
}

func membersCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "members",
		Usage:     "list the members of a group",
		ArgsUsage: "GROUP",
		Category:  categoryService,
		Flags:     readFlags(),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "GROUP")
			if err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				members, err := client.Members(ctx, args[0], readOptions(c, new(sdk.Receipt))...)
				if err != nil {
					return err
				}
				if c.Bool(flagJSON) {
					return writeJSON(e.stdout, toMembersJSON(members))
				}
				return printMembers(e.stdout, members)
			})
		},
	}
}

func printMembers(w io.Writer, members []sdk.Member) error {
	t := newTable(w, "ID", "ADDR", "WEIGHT", "STATE", "TTL", "META")
	for _, m := range members {
		t.row(m.ID, m.Addr, m.Weight, m.State, m.TTL, pairs(m.Meta))
	}
	return t.flush()
}

func deregisterCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "deregister",
		Usage:    "remove a member, whoever holds its id",
		Category: categoryService,
		Description: "Its process is told at its next heartbeat and may not come back under the same\n" +
			"registration. Removing a member that is not there succeeds.",
		Flags: clientFlags(
			&cli.StringFlag{Name: flagGroup, Usage: "the member's group"},
			&cli.StringFlag{Name: flagID, Usage: "the member's id"},
		),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			if err := require(c, flagGroup, flagID); err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				removed, err := client.Deregister(ctx, c.String(flagGroup), c.String(flagID))
				if err != nil {
					return err
				}
				what := "deregistered"
				if !removed {
					what = "was not registered"
				}
				fmt.Fprintf(e.stderr, "%s/%s %s\n", c.String(flagGroup), c.String(flagID), what)
				return nil
			})
		},
	}
}

func memberCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "member",
		Usage:    "change a member without its process",
		Category: categoryService,
		Subcommands: []*cli.Command{{
			Name:  "set",
			Usage: "set a member's weight or state (active, draining or held)",
			Flags: clientFlags(
				&cli.StringFlag{Name: flagGroup, Usage: "the member's group"},
				&cli.StringFlag{Name: flagID, Usage: "the member's id"},
				&cli.IntFlag{Name: flagWeight, Usage: "1–1000"},
				&cli.StringFlag{Name: "state", Usage: "active, draining (owns no keys) or held (keeps them while it is away)"},
			),
			Action: func(c *cli.Context) error { return memberSet(e, c) },
		}},
	}
}

func memberSet(e *env, c *cli.Context) error {
	if _, err := positional(c); err != nil {
		return err
	}
	if err := require(c, flagGroup, flagID); err != nil {
		return err
	}
	update, err := memberUpdate(c)
	if err != nil {
		return err
	}
	return withClient(c, func(ctx context.Context, client *sdk.Client) error {
		revision, err := client.UpdateMember(ctx, c.String(flagGroup), c.String(flagID), update)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.stderr, "%s/%s changed, group revision %d\n", c.String(flagGroup), c.String(flagID), revision)
		return nil
	})
}

func memberUpdate(c *cli.Context) (u sdk.MemberUpdate, err error) {
	if c.IsSet(flagWeight) {
		w := c.Int(flagWeight)
		u.Weight = &w
	}
	if c.IsSet("state") {
		s, err := parseState(c.String("state"))
		if err != nil {
			return u, err
		}
		u.State = &s
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
