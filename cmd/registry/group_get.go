package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

// guardWait bounds the question to the leader. A group is shown without its
// guard when no leader answers: the rest is any node's to say.
const guardWait = 2 * time.Second

type groupGetJSON struct {
	groupJSON
	Guard *guardJSON `json:"guard"` // null when the leader does not answer
}

type guardJSON struct {
	Phase    string `json:"phase"` // idle, waiting, holding, releasing or accepted
	Silent   int    `json:"silent"`
	Lost     int    `json:"lost"`
	Returned int    `json:"returned"`
	Gone     int    `json:"gone"`
	HoldLeft string `json:"hold_left"`
}

func groupGetCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "show a group's parameters and what the mass-loss guard does with it",
		ArgsUsage: "GROUP",
		Flags:     readFlags(),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "GROUP")
			if err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				g, _, err := client.Group(ctx, args[0], readOptions(c, new(sdk.Receipt))...)
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, guardWait)
				defer cancel()
				guard, guardErr := client.Guard(ctx, args[0])
				if c.Bool(flagJSON) {
					out := groupGetJSON{groupJSON: toGroupJSON(g)}
					if guardErr == nil {
						out.Guard = &guardJSON{guard.Phase.String(), guard.Silent, guard.Lost, guard.Returned, guard.Gone, holdLeft(guard).String()}
					}
					return writeJSON(e.stdout, out)
				}
				return printGroup(e.stdout, g, guardText(guard, guardErr))
			})
		},
	}
}

func printGroup(w io.Writer, g sdk.Group, guard string) error {
	t := newTable(w, "GROUP", "MEMBERS", "VIRTUAL NODES", "BOUND", "REVISION", "GUARD")
	t.row(g.Name, g.Members, g.VirtualNodes, bound(g.Bound), g.Revision, guard)
	return t.flush()
}

// holdLeft is as exact as it is of use.
func holdLeft(g sdk.Guard) time.Duration { return g.HoldLeft.Round(100 * time.Millisecond) }

// guardText says in a few words what the guard does.
func guardText(g sdk.Guard, err error) string {
	switch {
	case err != nil:
		return "unknown: the leader does not answer"
	case g.Phase == sdk.GuardIdle:
		return g.Phase.String()
	case g.Phase == sdk.GuardHolding:
		return fmt.Sprintf("%s %s for %s more", g.Phase, count(g.Silent, "silent member", "silent members"), holdLeft(g))
	}
	return fmt.Sprintf("%s, %s", g.Phase, count(g.Silent, "silent member", "silent members"))
}
