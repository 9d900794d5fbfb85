package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
)

// shownMoves is how many moves a table lists; JSON has them all.
const shownMoves = 20

// planJSON is a plan, and whether it is within -max-moved.
type planJSON struct {
	Group               string        `json:"group"`
	Revision            uint64        `json:"revision"`
	MaxMoved            string        `json:"max_moved"` // empty: no limit
	Within              bool          `json:"within"`
	Moved               ring.Share    `json:"moved"`
	Least               ring.Share    `json:"least"` // for these shares
	PointsBefore        int           `json:"points_before"`
	PointsAfter         int           `json:"points_after"`
	VirtualNodesBefore  int           `json:"virtual_nodes_before"`
	VirtualNodesAfter   int           `json:"virtual_nodes_after"`
	BoundBefore         bound         `json:"bound_before"`
	BoundAfter          bound         `json:"bound_after"`
	LargestToFairBefore float64       `json:"largest_to_fair_before"`
	LargestToFairAfter  float64       `json:"largest_to_fair_after"`
	Members             []plannedJSON `json:"members"`
	Moves               []ring.Move   `json:"moves"`
}

// plannedJSON is a member before and after; the weight is 0 where it is none.
type plannedJSON struct {
	ID           string     `json:"id"`
	WeightBefore int        `json:"weight_before"`
	WeightAfter  int        `json:"weight_after"`
	ShareBefore  ring.Share `json:"share_before"`
	ShareAfter   ring.Share `json:"share_after"`
}

func toPlanJSON(g *groupRing, p *ring.Plan, maxMoved string, within bool) planJSON {
	out := planJSON{
		Group: g.group.Name, Revision: g.receipt.Revision, MaxMoved: maxMoved, Within: within,
		Moved: p.Moved, Least: p.Least, PointsBefore: p.PointsBefore, PointsAfter: p.PointsAfter,
		VirtualNodesBefore: p.ParamsBefore.VirtualNodes, VirtualNodesAfter: p.ParamsAfter.VirtualNodes,
		BoundBefore: bound(p.ParamsBefore.Bound), BoundAfter: bound(p.ParamsAfter.Bound),
		LargestToFairBefore: ratio(p.LargestBefore), LargestToFairAfter: ratio(p.LargestAfter),
		Members: make([]plannedJSON, len(p.Members)), Moves: p.Moves,
	}
	for i, m := range p.Members {
		out.Members[i] = plannedJSON{m.ID, m.WeightBefore, m.WeightAfter, m.Before, m.After}
	}
	return out
}

func ringPlanCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "plan",
		Usage:     "show what a change would move, before anyone makes it",
		ArgsUsage: "GROUP",
		Description: "The figures are exact, from the ring's arcs. Every flag but -virtual-nodes and\n" +
			"-bound may be given more than once. With -max-moved the exit code is 7 if more\n" +
			"than that part of the keys would move.",
		Flags: readFlags(
			&cli.StringSliceFlag{Name: "join", Usage: "a member `ID[:WEIGHT]` joins"},
			&cli.StringSliceFlag{Name: "leave", Usage: "member `ID` leaves"},
			&cli.StringSliceFlag{Name: "drain", Usage: "member `ID` gets no more keys"},
			&cli.StringSliceFlag{Name: "hold", Usage: "member `ID` is away and keeps its keys"},
			&cli.StringSliceFlag{Name: "activate", Usage: "member `ID` takes part again"},
			&cli.StringSliceFlag{Name: flagWeight, Usage: "member `ID=WEIGHT` gets that weight"},
			&cli.IntFlag{Name: "virtual-nodes", Usage: "points of a member of weight 1: a power of two, 64–4096"},
			&cli.StringFlag{Name: "bound", Usage: "largest share a member may have, in fair shares: 1.10 for instance, or off"},
			maxMovedFlag(),
		),
		Action: func(c *cli.Context) error { return ringPlan(e, c) },
	}
}

func maxMovedFlag() cli.Flag {
	return &cli.StringFlag{Name: "max-moved", Usage: "exit with 7 if more than `P%` of the keys move"}
}

func ringPlan(e *env, c *cli.Context) error {
	change, err := planChange(c)
	if err != nil {
		return err
	}
	limit, err := maxMoved(c)
	if err != nil {
		return err
	}
	return withRing(c, func(g *groupRing) error {
		plan, err := ring.NewPlan(g.ring, change)
		if err != nil {
			return err
		}
		over := overLimit(plan.Moved, limit)
		if c.Bool(flagJSON) {
			err = writeJSON(e.stdout, toPlanJSON(g, plan, c.String("max-moved"), over == nil))
		} else {
			err = printPlan(e.stdout, plan)
		}
		if err != nil {
			return err
		}
		return over
	})
}

// planChange reads the flags of a plan.
func planChange(c *cli.Context) (ring.Change, error) {
	change, err := parameterChange(c)
	if err != nil {
		return change, err
	}
	change.Leave, change.Drain = c.StringSlice("leave"), c.StringSlice("drain")
	change.Hold, change.Activate = c.StringSlice("hold"), c.StringSlice("activate")
	for _, text := range c.StringSlice("join") {
		m, err := parseJoin(text)
		if err != nil {
			return change, err
		}
		change.Join = append(change.Join, m)
	}
	if change.Weights, err = parseWeights(c.StringSlice(flagWeight)); err != nil {
		return change, err
	}
	edits := len(change.Join) + len(change.Leave) + len(change.Drain) + len(change.Hold) + len(change.Activate) + len(change.Weights)
	if edits == 0 && change.VirtualNodes == 0 && change.Bound == nil {
		return change, usageErrorf("%s: no change to plan", c.Command.HelpName).
			withHint("for instance -join web-4, -leave web-2, -weight web-1=2, -virtual-nodes 512")
	}
	return change, nil
}

// parseJoin reads ID[:WEIGHT]. An id may have colons; a last part that is a
// number is the weight.
func parseJoin(text string) (ring.Member, error) {
	m := ring.Member{ID: text, Weight: 1}
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		if w, err := strconv.Atoi(text[i+1:]); err == nil {
			m = ring.Member{ID: text[:i], Weight: w}
		}
	}
	return m, m.Validate()
}

func parseWeights(values []string) (map[string]int, error) {
	weights := make(map[string]int, len(values))
	for _, v := range values {
		i := strings.LastIndexByte(v, '=')
		w, err := strconv.Atoi(v[i+1:])
		if i < 1 || err != nil {
			return nil, usageErrorf("-weight is %q, want ID=WEIGHT", v)
		}
		if _, twice := weights[v[:i]]; twice {
			return nil, usageErrorf("-weight gives %q twice", v[:i])
		}
		weights[v[:i]] = w
	}
	return weights, nil
}

// maxMoved reads -max-moved; nil when it is not given.
func maxMoved(c *cli.Context) (*ring.Share, error) {
	if !c.IsSet("max-moved") {
		return nil, nil
	}
	limit, err := ring.ParseShare(c.String("max-moved"))
	if err != nil {
		return nil, usageErrorf("-max-moved is %q, want 0%% to 100%%, such as 5%% or 0.25%%, with at most 12 decimals", c.String("max-moved"))
	}
	return &limit, nil
}

func overLimit(moved ring.Share, limit *ring.Share) error {
	if limit == nil || moved.Cmp(*limit) <= 0 {
		return nil
	}
	return checkErrorf("%s of the keys would move, more than %s", moved.Percent(), limit.Percent())
}

func printPlan(w io.Writer, p *ring.Plan) error {
	fmt.Fprintf(w, "moves %s of the keys; the least for these shares is %s\n", p.Moved.Percent(), p.Least.Percent())
	fmt.Fprintf(w, "points %d → %d  virtual nodes %d → %d  bound %v → %v  largest ÷ fair share %.3f → %.3f\n\n",
		p.PointsBefore, p.PointsAfter, p.ParamsBefore.VirtualNodes, p.ParamsAfter.VirtualNodes,
		bound(p.ParamsBefore.Bound), bound(p.ParamsAfter.Bound), ratio(p.LargestBefore), ratio(p.LargestAfter))
	t := newTable(w, "ID", "WEIGHT", "SHARE BEFORE", "AFTER")
	for _, m := range p.Members {
		weight := strconv.Itoa(m.WeightAfter)
		switch {
		case m.WeightBefore == 0:
			weight = "joins: " + weight
		case m.WeightAfter == 0:
			weight = "leaves"
		case m.WeightAfter != m.WeightBefore:
			weight = fmt.Sprintf("%d → %d", m.WeightBefore, m.WeightAfter)
		}
		t.row(m.ID, weight, m.Before.Percent(), m.After.Percent())
	}
	if err := t.flush(); err != nil || len(p.Moves) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printMoves(w, p.Moves)
}

func printMoves(w io.Writer, moves []ring.Move) error {
	t := newTable(w, "FROM", "TO", "KEYS")
	for _, m := range moves[:min(len(moves), shownMoves)] {
		t.row(m.From, m.To, m.Share.Percent())
	}
	if err := t.flush(); err != nil || len(moves) <= shownMoves {
		return err
	}
	_, err := fmt.Fprintf(w, "and %d more; -json lists them all\n", len(moves)-shownMoves)
	return err
}
