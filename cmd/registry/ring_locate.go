package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

// locateJSON says who owns a key and why.
type locateJSON struct {
	Group       string       `json:"group"`
	Key         string       `json:"key"`
	Hash        decimal64    `json:"hash"`
	Point       pointJSON    `json:"point"`
	Member      memberJSON   `json:"member"`
	Next        []memberJSON `json:"next"`
	Why         string       `json:"why"`
	Index       uint64       `json:"index"`
	Revision    uint64       `json:"revision"`
	Fingerprint hex64        `json:"fingerprint"`
}

func ringLocateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "locate",
		Usage:     "show who owns a key, who would be next, and why",
		ArgsUsage: "GROUP KEY…",
		Flags:     readFlags(&cli.IntFlag{Name: "n", Usage: "how many distinct owners", Value: 3}),
		Action: func(c *cli.Context) error {
			if c.Int("n") < 1 {
				return usageErrorf("-n is %d, want at least 1", c.Int("n"))
			}
			return withRing(c, func(g *groupRing) error {
				found, err := locate(g, c.Args().Tail(), c.Int("n"))
				if err != nil {
					return err
				}
				if c.Bool(flagJSON) {
					return writeJSON(e.stdout, found)
				}
				return printLocated(e.stdout, found)
			}, "KEY…")
		},
	}
}

func locate(g *groupRing, keys []string, n int) ([]locateJSON, error) {
	if g.ring.NumPoints() == 0 {
		return nil, fmt.Errorf("group %q: %w", g.group.Name, sdk.ErrEmptyGroup)
	}
	byID := make(map[string]sdk.Member, len(g.members))
	for _, m := range g.members {
		byID[m.ID] = m
	}
	out := make([]locateJSON, len(keys))
	for i, key := range keys {
		at := g.ring.Locate(key)
		owners := make([]memberJSON, 0, n)
		for _, m := range g.ring.MatchN(nil, key, n) {
			owners = append(owners, toMemberJSON(byID[g.ring.Member(m).ID]))
		}
		out[i] = locateJSON{
			Group: g.group.Name, Key: key, Hash: decimal64(at.Hash), Member: owners[0], Next: owners[1:], Why: why(at),
			Point: pointJSON{Hash: decimal64(at.Point.Hash), Member: at.Point.ID, Index: at.Point.Index, Owner: at.Owner},
			Index: g.receipt.Index, Revision: g.receipt.Revision, Fingerprint: hex64(g.receipt.Fingerprint),
		}
	}
	return out, nil
}

// why says in words what the other lines of the answer show.
func why(at ring.Location) string {
	text := fmt.Sprintf("the first point at or after the key's hash is number %d of %s", at.Point.Index, at.Point.ID)
	if at.Wrapped {
		text = fmt.Sprintf("no point is at or after the key's hash, and the ring's first is number %d of %s", at.Point.Index, at.Point.ID)
	}
	if at.Bounded {
		text += fmt.Sprintf("; %s would be above its bound, so this arc went to %s", at.Point.ID, at.Owner)
	}
	if at.State == ring.Held {
		text += "; it is held"
		if at.Fallback != "" {
			text += ", ask " + at.Fallback + " for now"
		}
	}
	return text
}

func printLocated(w io.Writer, found []locateJSON) error {
	t := newTable(w)
	for i, f := range found {
		if i > 0 {
			t.blank()
		}
		t.row("key", f.Key)
		t.row("hash", uint64(f.Hash))
		t.row("point", fmt.Sprintf("%d (%s, index %d)", f.Point.Hash, f.Point.Member, f.Point.Index))
		t.row("owner", fmt.Sprintf("%s at %s (%s)", f.Member.ID, f.Member.Addr, f.Member.State))
		for _, m := range f.Next {
			t.row("next", fmt.Sprintf("%s at %s (%s)", m.ID, m.Addr, m.State))
		}
		t.row("why", f.Why)
		t.row("fingerprint", f.Fingerprint)
	}
	return t.flush()
}
