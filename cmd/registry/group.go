package main

import (
	"context"
	"fmt"
	"io"
	"math/big"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

type groupJSON struct {
	Group        string `json:"group"`
	VirtualNodes int    `json:"virtual_nodes"`
	Bound        bound  `json:"bound"`
	Members      int    `json:"members"`
	Revision     uint64 `json:"revision"`
}

func toGroupJSON(g sdk.Group) groupJSON {
	return groupJSON{g.Name, g.VirtualNodes, bound(g.Bound), g.Members, g.Revision}
}

func groupsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "groups",
		Usage:    "list the groups",
		Category: categoryService,
		Flags:    readFlags(&cli.StringFlag{Name: flagPrefix, Usage: "only those whose names begin with it"}),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				groups, err := client.GroupsWithPrefix(ctx, c.String(flagPrefix), readOptions(c, new(sdk.Receipt))...)
				if err != nil {
					return err
				}
				if !c.Bool(flagJSON) {
					return printGroups(e.stdout, groups)
				}
				out := make([]groupJSON, len(groups))
				for i, g := range groups {
					out[i] = toGroupJSON(g)
				}
				return writeJSON(e.stdout, out)
			})
		},
	}
}

func printGroups(w io.Writer, groups []sdk.Group) error {
	t := newTable(w, "GROUP", "MEMBERS", "VIRTUAL NODES", "BOUND", "REVISION")
	for _, g := range groups {
		t.row(g.Name, g.Members, g.VirtualNodes, bound(g.Bound), g.Revision)
	}
	return t.flush()
}

func groupCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "group",
		Usage:       "look at a group's parameters and change them, or delete it",
		Category:    categoryService,
		Subcommands: []*cli.Command{groupGetCommand(e), groupSetCommand(e), groupDeleteCommand(e), groupAcceptLossCommand(e)},
	}
}

// groupAcceptLossCommand is for a real scale-down of many members at once.
func groupAcceptLossCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "accept-loss",
		Usage:       "remove the silent members at once that the mass-loss guard holds",
		ArgsUsage:   "GROUP",
		Description: "If there are any it says how many, " + confirmRule,
		Flags:       clientFlags(jsonFlag(), yesFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "GROUP")
			if err != nil {
				return err
			}
			return change(c, func(l *link) error { return confirmLoss(e, c, l, args[0]) }, func(ctx context.Context, l *link) error {
				n, err := l.AcceptLoss(ctx, args[0])
				if err != nil {
					return err
				}
				return printDone(e, c, map[string]any{"group": args[0], "silent": n},
					"%s of %s %s now", count(n, "silent member", "silent members"), args[0], plural(n, "goes", "go"))
			})
		},
	}
}

// bound is the largest share that a member may have, in per mille of its fair
// share. It is shown as people type it: 1100 is "1.100", 0 is "off".
type bound int

func (b bound) String() string {
	if b == 0 {
		return "off"
	}
	return big.NewRat(int64(b), 1000).FloatString(3)
}

// MarshalText makes it a JSON string.
func (b bound) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// boundLimits says what a bound may be, in the unit that people type it in.
const boundLimits = "off, or 1.01 to 10 fair shares with at most three decimals"

// UnmarshalText reads "1.10", or "0" or "off".
func (b *bound) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*b = 0
		return nil
	}
	r, ok := new(big.Rat).SetString(string(text))
	if !ok {
		return fmt.Errorf("%q, want %s", text, boundLimits)
	}
	r.Mul(r, big.NewRat(1000, 1))
	if !r.IsInt() || !r.Num().IsInt64() || r.Sign() < 0 || r.Num().Int64() > 1_000_000 {
		return fmt.Errorf("%q, want %s", text, boundLimits)
	}
	*b = bound(r.Num().Int64())
	return nil
}
