package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

func groupSetCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "create a group, or change its ring's parameters",
		ArgsUsage: "GROUP",
		Description: "Shows first which part of the keys would move. If any would, it\n" + confirmRule + "\n" +
			"Doubling or halving the virtual nodes moves about half.",
		Flags: clientFlags(
			&cli.IntFlag{Name: "virtual-nodes", Usage: "points of a member of weight 1: a power of two, 64–4096"},
			&cli.StringFlag{Name: "bound", Usage: "largest share a member may have, in fair shares: 1.10 for instance, or off"},
			yesFlag(), jsonFlag(),
		),
		Action: func(c *cli.Context) error { return groupSet(e, c) },
	}
}

func groupSet(e *env, c *cli.Context) error {
	args, err := positional(c, "GROUP")
	if err != nil {
		return err
	}
	change, err := parameterChange(c)
	if err != nil {
		return err
	}
	client, err := dialLink(c)
	if err != nil {
		return err
	}
	defer client.Close()
	set, plan, err := prepareSet(c, client, args[0], change)
	if err != nil {
		return err
	}
	if plan != nil && change.VirtualNodes == 0 && change.Bound == nil {
		return printDone(e, c, map[string]any{"group": args[0], "revision": set.ExpectedRevision},
			"group %s exists, and neither -virtual-nodes nor -bound is to be set; revision %d", args[0], set.ExpectedRevision)
	}
	if plan != nil {
		if err := printPlan(e.stderr, plan); err != nil {
			return err
		}
		if plan.Moved != (ring.Share{}) {
			if err := confirm(e, c, plan.Moved.Percent()+" of the keys would move"); err != nil {
				return err
			}
		}
	}
	var revision uint64
	err = client.ask(c, func(ctx context.Context) error {
		revision, err = client.SetGroup(ctx, set)
		return err
	})
	if err != nil {
		return err
	}
	return printDone(e, c, map[string]any{"group": args[0], "revision": revision}, "group %s set, revision %d", args[0], revision)
}

// parameterChange is what -virtual-nodes and -bound ask for.
func parameterChange(c *cli.Context) (change ring.Change, err error) {
	if c.IsSet("virtual-nodes") {
		change.VirtualNodes = c.Int("virtual-nodes")
		if (ring.Params{VirtualNodes: change.VirtualNodes}).Validate() != nil {
			return change, usageErrorf("-virtual-nodes is %d, want a power of two, %d to %d", change.VirtualNodes, ring.MinVirtualNodes, ring.MaxVirtualNodes)
		}
	}
	if c.IsSet("bound") {
		var b bound
		if err := b.UnmarshalText([]byte(c.String("bound"))); err != nil {
			return change, usageErrorf("-bound is %w", err)
		}
		permille := int(b)
		if (ring.Params{VirtualNodes: ring.DefaultVirtualNodes, Bound: permille}).Validate() != nil {
			return change, usageErrorf("-bound is %q, want %s", c.String("bound"), boundLimits)
		}
		change.Bound = &permille
	}
	return change, nil
}

// prepareSet returns the whole change, tied to the revision that the plan is
// for. There is no plan for a group that does not exist yet.
func prepareSet(c *cli.Context, client *link, name string, change ring.Change) (sdk.SetGroup, *ring.Plan, error) {
	set := sdk.SetGroup{Group: name, VirtualNodes: change.VirtualNodes}
	if change.Bound != nil {
		set.Bound = *change.Bound
	}
	var g *groupRing
	err := client.ask(c, func(ctx context.Context) (err error) {
		g, err = fetchRing(ctx, c, client.Client, name)
		return err
	})
	if errors.Is(err, sdk.ErrUnknownGroup) {
		return set, nil, nil
	}
	if err != nil {
		return set, nil, err
	}
	plan, err := ring.NewPlan(g.ring, change)
	if err != nil {
		return set, nil, err
	}
	set.VirtualNodes, set.Bound = plan.ParamsAfter.VirtualNodes, plan.ParamsAfter.Bound
	set.ExpectedRevision = g.receipt.Revision
	return set, plan, nil
}
