package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
)

// statsJSON describes a ring. Shares are parts of the whole key space.
// A fair share is what the member's weight asks for.
type statsJSON struct {
	Group    string `json:"group"`
	Revision uint64 `json:"revision"`
	figuresJSON
}

// figuresJSON are those of a ring that is no group's at some revision.
type figuresJSON struct {
	VirtualNodes    int              `json:"virtual_nodes"`
	Bound           bound            `json:"bound"`
	BoundInUse      bound            `json:"bound_in_use"` // weaker, where the bound cannot be kept
	Fingerprint     hex64            `json:"fingerprint"`
	Points          int              `json:"points"`
	Bytes           int              `json:"bytes"`
	LargestToFair   float64          `json:"largest_to_fair"`
	SmallestToFair  float64          `json:"smallest_to_fair"`
	DeviationToFair float64          `json:"deviation_to_fair"` // standard deviation of share ÷ fair share
	MovedByBound    ring.Share       `json:"moved_by_bound"`
	Members         []memberStatJSON `json:"members"`
}

type memberStatJSON struct {
	ID     string     `json:"id"`
	Weight int        `json:"weight"`
	State  string     `json:"state"`
	Points int        `json:"points"`
	Share  ring.Share `json:"share"`
	ToFair float64    `json:"to_fair"`
}

func ringStatsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "stats",
		Usage:     "show each member's share of the keys, and the ring's balance and size",
		ArgsUsage: "GROUP",
		Flags:     readFlags(),
		Action: func(c *cli.Context) error {
			return withRing(c, func(g *groupRing) error {
				stats := statsJSON{g.group.Name, g.receipt.Revision, figuresOf(g.ring)}
				if c.Bool(flagJSON) {
					return writeJSON(e.stdout, stats)
				}
				return printStats(e.stdout, stats)
			})
		},
	}
}

func figuresOf(r *ring.Ring) figuresJSON {
	s := r.Stats()
	out := figuresJSON{
		VirtualNodes: s.Params.VirtualNodes, Bound: bound(s.Params.Bound), BoundInUse: bound(s.BoundInUse), Fingerprint: hex64(s.Fingerprint),
		Points: s.Points, Bytes: s.Bytes, MovedByBound: s.MovedShare,
		LargestToFair: ratio(s.Largest), SmallestToFair: ratio(s.Smallest), DeviationToFair: ratio(s.Deviation),
		Members: make([]memberStatJSON, len(s.Shares)),
	}
	for i, m := range s.Shares {
		out.Members[i] = memberStatJSON{
			ID: m.ID, Weight: m.Weight, State: m.State.String(),
			Points: m.Points, Share: m.Share, ToFair: ratio(m.ToFair),
		}
	}
	return out
}

// ratio is for display and for nothing else: a ring has no floats.
func ratio(p ring.PPM) float64 { return float64(p) / 1e6 }

func printStats(w io.Writer, s statsJSON) error {
	limit := s.Bound.String()
	if s.BoundInUse != s.Bound {
		limit += fmt.Sprintf(", in use %v", s.BoundInUse)
	}
	fmt.Fprintf(w, "group %s  revision %d  fingerprint %v\n", printable(s.Group), s.Revision, s.Fingerprint)
	fmt.Fprintf(w, "%s  %s (virtual nodes %d, bound %s)  %s\n",
		count(len(s.Members), "member", "members"), count(s.Points, "point", "points"), s.VirtualNodes, limit, byteText(s.Bytes))
	fmt.Fprintf(w, "share ÷ fair share: largest %.3f  smallest %.3f  standard deviation %.3f\n\n", s.LargestToFair, s.SmallestToFair, s.DeviationToFair)
	t := newTable(w, "ID", "WEIGHT", "STATE", "POINTS", "SHARE", "÷ FAIR")
	for _, m := range s.Members {
		t.row(m.ID, m.Weight, m.State, m.Points, m.Share.Percent(), fmt.Sprintf("%.3f", m.ToFair))
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
