package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
)

// ringFile is what "ring show -json" prints, and what "ring diff" reads.
type ringFile struct {
	Group        string      `json:"group"`
	VirtualNodes int         `json:"virtual_nodes"`
	Bound        bound       `json:"bound"`
	Fingerprint  hex64       `json:"fingerprint"`
	Digest       hex64       `json:"digest"`
	Points       []pointJSON `json:"points"`
}

// pointJSON is a point. Hashes are decimal texts, because many JSON readers
// keep only 53 bits of a number.
type pointJSON struct {
	Hash   decimal64 `json:"hash"`
	Member string    `json:"member"`
	Index  int       `json:"index"`
	Owner  string    `json:"owner"` // of the keys: another member where a bound gave them away
}

type decimal64 uint64

func (d decimal64) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(d), 10), nil }

func (d *decimal64) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 10, 64)
	*d = decimal64(v)
	return err
}

func toPointJSON(r *ring.Ring, p ring.Point) pointJSON {
	return pointJSON{Hash: decimal64(p.Hash), Member: r.Member(p.Member).ID, Index: p.Index, Owner: r.Member(p.Owner).ID}
}

func ringShowCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "show",
		Usage:       "list the points of a group's ring, in its order",
		ArgsUsage:   "GROUP",
		Description: "Save the output of -json to compare two points in time with \"ring diff\".",
		Flags:       readFlags(),
		Action: func(c *cli.Context) error {
			return withRing(c, func(g *groupRing) error {
				w := bufio.NewWriter(e.stdout)
				if c.Bool(flagJSON) {
					if err := writeRingJSON(w, g); err != nil {
						return err
					}
				} else {
					writeRingTable(w, g.ring)
				}
				return w.Flush()
			})
		},
	}
}

// writeRingJSON writes a ringFile point by point: a ring may have millions.
func writeRingJSON(w io.Writer, g *groupRing) error {
	var head bytes.Buffer
	err := writeJSON(&head, ringFile{
		Group: g.group.Name, VirtualNodes: g.group.VirtualNodes, Bound: bound(g.group.Bound),
		Fingerprint: hex64(g.receipt.Fingerprint), Digest: hex64(g.ring.Digest()), Points: []pointJSON{},
	})
	if err != nil {
		return err
	}
	w.Write(bytes.TrimSuffix(head.Bytes(), []byte("[]\n}\n")))
	points := newJSONArray(w, "  ")
	for p := range g.ring.Points() {
		if err := points.add(toPointJSON(g.ring, p)); err != nil {
			return err
		}
	}
	if err := points.close(); err != nil {
		return err
	}
	_, err = io.WriteString(w, "\n}\n")
	return err
}

// writeRingTable needs no alignment beyond that of the hash, which is why it
// does not keep the whole table in memory.
func writeRingTable(w io.Writer, r *ring.Ring) {
	fmt.Fprintf(w, "%-20s  %-6s  MEMBER\n", "HASH", "INDEX")
	for p := range r.Points() {
		owner := ""
		if p.Owner != p.Member {
			owner = "  (bound: keys go to " + printable(r.Member(p.Owner).ID) + ")"
		}
		fmt.Fprintf(w, "%-20d  %-6d  %s%s\n", p.Hash, p.Index, printable(r.Member(p.Member).ID), owner)
	}
}

// readRingFile rebuilds the ring that a file shows and checks its fingerprint
// and digest.
func readRingFile(path string) (*ring.Ring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var file ringFile
	if err := json.NewDecoder(f).Decode(&file); err != nil {
		return nil, fmt.Errorf("%s is not the output of \"registry ring show -json\": %w", path, err)
	}
	r, err := file.ring()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// ring takes each member's weight from the number of its points.
func (f ringFile) ring() (*ring.Ring, error) {
	points := map[string]int{}
	for _, p := range f.Points {
		points[p.Member]++
	}
	params := ring.Params{VirtualNodes: f.VirtualNodes, Bound: int(f.Bound)}
	if err := params.Validate(); err != nil {
		return nil, err
	}
	members := make([]ring.Member, 0, len(points))
	for id, n := range points {
		members = append(members, ring.Member{ID: id, Weight: n / f.VirtualNodes})
	}
	r, err := ring.New(params, members)
	if err != nil {
		return nil, err
	}
	if own := hex64(r.Fingerprint()); own != f.Fingerprint {
		return nil, checkErrorf("its members and parameters have fingerprint %v, not %v", own, f.Fingerprint)
	}
	if own := hex64(r.Digest()); own != f.Digest {
		return nil, checkErrorf("the ring that is built of it has digest %v, not %v", own, f.Digest)
	}
	return r, nil
}
