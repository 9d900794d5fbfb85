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
	Group    string `json:"group"`
	Revision uint64 `json:"revision"`
	MaxMoved string `json:"max_moved,omitempty"`
	Within   bool   `json:"within"`
	*ring.Plan
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
			err = writeJSON(e.stdout, planJSON{g.group.Name, g.receipt.Revision, c.String("max-moved"), over == nil, plan})
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
		return nil, usageErrorf("-max-moved: %w", err)
	}
	return &limit, nil
}

func overLimit(moved ring.Share, limit *ring.Share) error {
	if limit == nil || moved.Cmp(*limit) <= 0 {
		return nil
	}
	return checkErrorf("%s of the keys would move, more than %s", shareText(moved), shareText(*limit))
}

func printPlan(w io.Writer, p *ring.Plan) error {
	fmt.Fprintf(w, "moves %s of the keys; the least for these shares is %s\n", shareText(p.Moved), shareText(p.Least))
	fmt.Fprintf(w, "points %d → %d  virtual nodes %d → %d  bound %s → %s  largest ÷ fair share %.3f → %.3f\n\n",
		p.PointsBefore, p.PointsAfter, p.ParamsBefore.VirtualNodes, p.ParamsAfter.VirtualNodes,
		boundText(p.ParamsBefore.Bound), boundText(p.ParamsAfter.Bound), ratio(p.LargestBefore), ratio(p.LargestAfter))
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
		t.row(m.ID, weight, shareText(m.Before), shareText(m.After))
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
		t.row(m.From, m.To, shareText(m.Share))
	}
	if err := t.flush(); err != nil || len(moves) <= shownMoves {
		return err
	}
	_, err := fmt.Fprintf(w, "and %d more; -json lists them all\n", len(moves)-shownMoves)
	return err
}

// shareText prints a share for people: two decimals of a per cent.
func shareText(s ring.Share) string { return percent(float(s)) }
