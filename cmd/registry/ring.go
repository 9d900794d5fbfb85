package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

func ringCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "ring",
		Usage:    "look at a group's ring and at what a change would do to it",
		Category: categoryRing,
		Description: "The ring is built here, from the group's members and parameters, which must have\n" +
			"the fingerprint that the node reports; if they have not the exit code is 7.",
		Subcommands: []*cli.Command{
			ringStatsCommand(e), ringShowCommand(e), ringLocateCommand(e), ringDigestCommand(e),
			ringPlanCommand(e), ringDiffCommand(e), ringPlotCommand(e),
		},
	}
}

// groupRing is a group at one revision and the ring that was built of it here.
type groupRing struct {
	group   sdk.Group
	members []sdk.Member
	receipt sdk.Receipt
	ring    *ring.Ring
}

// fetchRing asks a node for the group and builds its ring.
func fetchRing(ctx context.Context, c *cli.Context, client *sdk.Client, name string) (*groupRing, error) {
	g := &groupRing{}
	var err error
	g.group, g.members, err = client.Group(ctx, name, readOptions(c, &g.receipt)...)
	if err != nil {
		return nil, err
	}
	if g.ring, err = ring.New(paramsOf(g.group), ringMembers(g.members)); err != nil {
		return nil, checkErrorf("the group as node %s reports it makes no ring: %w", g.receipt.Node, err)
	}
	if own := g.ring.Fingerprint(); own != g.receipt.Fingerprint {
		return nil, checkErrorf("the members and parameters of %q have fingerprint %v here and %v on node %s", name, hex64(own), hex64(g.receipt.Fingerprint), g.receipt.Node).
			withHint("this program (%s) and the node may be of different versions", buildVersion())
	}
	return g, nil
}

// withRing runs fn with the ring of the group that the first argument names.
func withRing(c *cli.Context, fn func(*groupRing) error, argNames ...string) error {
	args, err := positional(c, append([]string{"GROUP"}, argNames...)...)
	if err != nil {
		return err
	}
	var g *groupRing
	err = withClient(c, func(ctx context.Context, client *sdk.Client) error {
		g, err = fetchRing(ctx, c, client, args[0])
		return err
	})
	if err != nil {
		return err
	}
	return fn(g)
}

func paramsOf(g sdk.Group) ring.Params {
	return ring.Params{VirtualNodes: g.VirtualNodes, Bound: g.Bound}
}

func ringMembers(members []sdk.Member) []ring.Member {
	out := make([]ring.Member, len(members))
	for i, m := range members {
		out[i] = ring.Member{ID: m.ID, Weight: m.Weight, State: ringState(m.State)}
	}
	return out
}

func ringState(s sdk.State) ring.State {
	switch s {
	case sdk.StateDraining:
		return ring.Draining
	case sdk.StateHeld:
		return ring.Held
	}
	return ring.Active
}
