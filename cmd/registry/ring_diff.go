package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

// diffJSON lists the ranges of key hashes that have another owner in the second ring.
type diffJSON struct {
	FingerprintBefore hex64       `json:"fingerprint_before"`
	FingerprintAfter  hex64       `json:"fingerprint_after"`
	Moved             ring.Share  `json:"moved"`
	Moves             []ring.Move `json:"moves"`
	Ranges            []rangeJSON `json:"ranges"`
}

// rangeJSON is [Lo, Hi), in decimal; Hi may be 2^64.
type rangeJSON struct {
	Lo   string `json:"lo"`
	Hi   string `json:"hi"`
	From string `json:"from"`
	To   string `json:"to"`
}

func ringDiffCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show which keys have another owner in a second ring",
		ArgsUsage: "A B",
		Description: "A and B are files that \"ring show -json\" wrote, or groups. A name\n" +
			"with a \"/\", a name that ends in .json and the name of an existing file mean a file.",
		Flags: readFlags(
			&cli.BoolFlag{Name: "ranges", Usage: "list the ranges of key hashes too"},
			maxMovedFlag(),
		),
		Action: func(c *cli.Context) error { return ringDiff(e, c) },
	}
}

func ringDiff(e *env, c *cli.Context) error {
	args, err := positional(c, "A", "B")
	if err != nil {
		return err
	}
	limit, err := maxMoved(c)
	if err != nil {
		return err
	}
	before, err := loadRing(c, args[0])
	if err != nil {
		return err
	}
	after, err := loadRing(c, args[1])
	if err != nil {
		return err
	}
	diff := diffOf(before, after)
	if c.Bool(flagJSON) {
		err = writeJSON(e.stdout, diff)
	} else {
		err = printDiff(e.stdout, diff, c.Bool("ranges"))
	}
	if err != nil {
		return err
	}
	return overLimit(diff.Moved, limit)
}

// loadRing reads a saved ring or fetches a group's.
func loadRing(c *cli.Context, name string) (r *ring.Ring, err error) {
	if _, err := os.Stat(name); err == nil || strings.ContainsRune(name, '/') || strings.HasSuffix(name, ".json") {
		return readRingFile(name)
	}
	err = withClient(c, func(ctx context.Context, client *sdk.Client) error {
		g, err := fetchRing(ctx, c, client, name)
		if err == nil {
			r = g.ring
		}
		return err
	})
	return r, err
}

func diffOf(before, after *ring.Ring) diffJSON {
	d := diffJSON{
		FingerprintBefore: hex64(before.Fingerprint()), FingerprintAfter: hex64(after.Fingerprint()),
		Moves: []ring.Move{}, Ranges: []rangeJSON{},
	}
	type pair struct{ from, to string }
	sums := map[pair]ring.Share{}
	for r := range ring.DiffSeq(before, after) {
		p := pair{r.From, r.To}
		sums[p] = sums[p].Add(r.Share())
		d.Moved = d.Moved.Add(r.Share())
		d.Ranges = append(d.Ranges, toRangeJSON(r))
	}
	for p, share := range sums {
		d.Moves = append(d.Moves, ring.Move{From: p.from, To: p.to, Share: share})
	}
	slices.SortFunc(d.Moves, func(a, b ring.Move) int {
		return cmp.Or(b.Share.Cmp(a.Share), strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	return d
}

func toRangeJSON(r ring.Range) rangeJSON {
	hi := "18446744073709551616" // 2^64
	if r.Hi != 0 {
		hi = strconv.FormatUint(r.Hi, 10)
	}
	return rangeJSON{Lo: strconv.FormatUint(r.Lo, 10), Hi: hi, From: r.From, To: r.To}
}

func printDiff(w io.Writer, d diffJSON, ranges bool) error {
	fmt.Fprintf(w, "fingerprint %v → %v\n%s of the keys have another owner, in %s\n",
		d.FingerprintBefore, d.FingerprintAfter, d.Moved.Percent(), count(len(d.Ranges), "range", "ranges"))
	if len(d.Moves) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	if err := printMoves(w, d.Moves); err != nil || !ranges {
		return err
	}
	fmt.Fprintln(w)
	t := newTable(w, "FROM HASH", "BELOW HASH", "FROM", "TO")
	for _, r := range d.Ranges {
		t.row(r.Lo, r.Hi, r.From, r.To)
	}
	return t.flush()
}
