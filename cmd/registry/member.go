package main

import (
	"context"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

// memberJSON is a member as every command prints it.
type memberJSON struct {
	ID            string            `json:"id"`
	Addr          string            `json:"addr"`
	Weight        int               `json:"weight"`
	State         string            `json:"state"`
	Hold          string            `json:"hold"`
	TTL           string            `json:"ttl"`
	Meta          map[string]string `json:"meta"`
	CreatedIndex  uint64            `json:"created_index"`
	ModifiedIndex uint64            `json:"modified_index"`
	RegisteredAt  *time.Time        `json:"registered_at"`
}

func toMemberJSON(m sdk.Member) memberJSON {
	out := memberJSON{
		ID: m.ID, Addr: m.Addr, Weight: m.Weight, State: m.State.String(), Hold: m.Hold.String(), TTL: m.TTL.String(),
		Meta: m.Meta, CreatedIndex: m.CreatedIndex, ModifiedIndex: m.ModifiedIndex,
	}
	if out.Meta == nil {
		out.Meta = map[string]string{}
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
		t.row(m.ID, m.Addr, m.Weight, stateText(m), m.TTL, pairs(m.Meta))
	}
	return t.flush()
}

// stateText is a member's state, with the time of a hold.
func stateText(m sdk.Member) string {
	if m.Hold > 0 {
		return m.State.String() + " " + m.Hold.String()
	}
	return m.State.String()
}

func deregisterCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "deregister",
		Usage:     "remove a member, whichever process registered it",
		ArgsUsage: memberArgs,
		Category:  categoryService,
		Description: "Its process learns of it at its next heartbeat and ends; a restarted one registers\n" +
			"again. To remove a member that does not exist is no error. If keys would move it\n" +
			"shows them, " + confirmRule,
		Flags: memberFlags(),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			if err := require(c, flagGroup, flagID); err != nil {
				return err
			}
			return deregister(e, c, c.String(flagGroup), c.String(flagID))
		},
	}
}

func deregister(e *env, c *cli.Context, group, id string) error {
	leaves := func(l *link) error {
		return confirmMember(e, c, l, group, id, func(m *ring.Member) { m.ID = "" })
	}
	return change(c, leaves, func(ctx context.Context, l *link) error {
		removed, err := l.Deregister(ctx, group, id)
		if err != nil {
			return err
		}
		what := "deregistered"
		if !removed {
			what = "was not registered"
		}
		return printDone(e, c, map[string]any{"group": group, "id": id, "removed": removed}, "%s/%s %s", group, id, what)
	})
}
