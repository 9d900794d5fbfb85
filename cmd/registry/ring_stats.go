package main

import (
	"fmt"
	"io"
	"math"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
)

// statsJSON describes a ring. Shares are parts of the whole key space, 0 to 1.
// A fair share is what the member's weight asks for.
type statsJSON struct {
	Group           string           `json:"group"`
	VirtualNodes    int              `json:"virtual_nodes"`
	Bound           int              `json:"bound"`                  // per mille of the fair share; 0 is off
	BoundInUse      int              `json:"bound_in_use,omitempty"` // weaker, where the bound cannot be kept
	Revision        uint64           `json:"revision"`
	Fingerprint     hex64            `json:"fingerprint"`
	Points          int              `json:"points"`
	Bytes           int              `json:"bytes"`
	LargestToFair   float64          `json:"largest_to_fair"`
	SmallestToFair  float64          `json:"smallest_to_fair"`
	DeviationToFair float64          `json:"deviation_to_fair"` // standard deviation of share ÷ fair share
	MovedByBound    float64          `json:"moved_by_bound,omitempty"`
	Members         []memberStatJSON `json:"members"`
}

type memberStatJSON struct {
	ID     string  `json:"id"`
	Weight int     `json:"weight"`
	State  string  `json:"state"`
	Points int     `json:"points"`
	Share  float64 `json:"share"`
	ToFair float64 `json:"to_fair"`
}

func ringStatsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "stats",
		Usage:     "show each member's share of the keys, and the ring's balance and size",
		ArgsUsage: "GROUP",
		Flags:     readFlags(),
		Action: func(c *cli.Context) error {
			return withRing(c, func(g *groupRing) error {
				stats := statsOf(g)
				if c.Bool(flagJSON) {
					return writeJSON(e.stdout, stats)
				}
				return printStats(e.stdout, stats)
			})
		},
	}
}

func statsOf(g *groupRing) statsJSON {
	s := g.ring.Stats()
	out := statsJSON{
		Group: g.group.Name, Revision: g.receipt.Revision, Fingerprint: hex64(s.Fingerprint),
		VirtualNodes: s.Params.VirtualNodes, Bound: s.Params.Bound, BoundInUse: s.BoundInUse,
		Points: s.Points, Bytes: s.Bytes, MovedByBound: float(s.MovedShare),
		LargestToFair: ratio(s.Largest), SmallestToFair: ratio(s.Smallest), DeviationToFair: ratio(s.Deviation),
		Members: make([]memberStatJSON, len(s.Shares)),
	}
	for i, m := range s.Shares {
		out.Members[i] = memberStatJSON{
			ID: m.ID, Weight: m.Weight, State: m.State.String(),
			Points: m.Points, Share: float(m.Share), ToFair: ratio(m.ToFair),
		}
	}
	return out
}

// float and ratio are for display and for nothing else: a ring has no floats.
func float(s ring.Share) float64 { return float64(s.Hi) + math.Ldexp(float64(s.Lo), -64) }

func ratio(p ring.PPM) float64 { return float64(p) / 1e6 }

func printStats(w io.Writer, s statsJSON) error {
	bound := boundText(s.Bound)
	if s.BoundInUse != s.Bound {
		bound += fmt.Sprintf(", in use %s", boundText(s.BoundInUse))
	}
	fmt.Fprintf(w, "group %s  revision %d  fingerprint %v\n", printable(s.Group), s.Revision, s.Fingerprint)
	fmt.Fprintf(w, "%d members  %d points (virtual nodes %d, bound %s)  %s\n", len(s.Members), s.Points, s.VirtualNodes, bound, byteText(s.Bytes))
	fmt.Fprintf(w, "share ÷ fair share: largest %.3f  smallest %.3f  standard deviation %.3f\n\n", s.LargestToFair, s.SmallestToFair, s.DeviationToFair)
	t := newTable(w, "ID", "WEIGHT", "STATE", "POINTS", "SHARE", "÷ FAIR")
	for _, m := range s.Members {
		t.row(m.ID, m.Weight, m.State, m.Points, percent(m.Share), fmt.Sprintf("%.3f", m.ToFair))
	}
	return t.flush()
}

func byteText(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
