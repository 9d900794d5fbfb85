package main

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/backup"
)

// largestGroups is how many groups are shown.
const largestGroups = 10

func snapshotInspectCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "inspect",
		Usage:       "check a snapshot file and show what is in it",
		ArgsUsage:   "FILE",
		Description: "Reads the whole file and asks no node. Of tokens it shows the names.",
		Flags:       []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			args, err := positional(c, "FILE")
			if err != nil {
				return err
			}
			f, file, err := openSnapshot(args[0])
			if err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			s := snapshotOf(file, largestGroups)
			if c.Bool(flagJSON) {
				return writeJSON(e.stdout, s)
			}
			return printSnapshot(e.stdout, s)
		},
	}
}

type snapshotJSON struct {
	Cluster       string              `json:"cluster"`
	ClusterID     string              `json:"cluster_id"`
	Index         uint64              `json:"index"`
	Term          uint64              `json:"term"`
	SavedAt       time.Time           `json:"saved_at"`
	SavedBy       string              `json:"saved_by"`
	Version       string              `json:"version"`
	Format        uint32              `json:"format"`
	Parts         uint64              `json:"parts"`
	Bytes         int64               `json:"bytes"`
	Digest        hex64               `json:"digest"`
	Groups        int                 `json:"groups"`
	Members       int                 `json:"members"`
	Fences        int                 `json:"fences"`
	Nodes         []snapshotNodeJSON  `json:"nodes"`
	Tokens        []snapshotTokenJSON `json:"tokens"`
	LargestGroups []snapshotGroupJSON `json:"largest_groups"`
}

type snapshotNodeJSON struct {
	ID      string `json:"id"`
	Bind    string `json:"bind"`
	Addr    string `json:"addr"`
	Version string `json:"version"`
}

type snapshotTokenJSON struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type snapshotGroupJSON struct {
	Group       string `json:"group"`
	Members     int    `json:"members"`
	Revision    uint64 `json:"revision"`
	Fingerprint hex64  `json:"fingerprint"`
}

// snapshotOf describes a file, with its largest groups.
func snapshotOf(f *backup.File, largest int) snapshotJSON {
	h := f.Header
	out := snapshotJSON{
		Cluster: h.Cluster, ClusterID: h.ClusterId, Index: h.Index, Term: h.Term,
		SavedAt: time.UnixMilli(h.TimeMs).UTC(), SavedBy: h.Node, Version: h.NodeVersion,
		Format: h.Version, Parts: f.Parts, Bytes: f.Size, Digest: hex64(h.Digest),
		Groups: int(h.Groups), Members: int(h.Members), Fences: int(h.Fences),
		Nodes: []snapshotNodeJSON{}, Tokens: []snapshotTokenJSON{}, LargestGroups: []snapshotGroupJSON{},
	}
	for n := range f.State.Nodes {
		out.Nodes = append(out.Nodes, snapshotNodeJSON{n.ID, n.Bind, n.Addr, n.Version})
	}
	for t := range f.State.TokensFrom("") {
		out.Tokens = append(out.Tokens, snapshotTokenJSON{hex.EncodeToString([]byte(t.ID)), t.Name})
	}
	for g := range f.State.Groups {
		out.LargestGroups = insertLargest(out.LargestGroups, g, largest)
	}
	return out
}

// insertLargest keeps the n largest groups, in order; of equal ones the first by name.
func insertLargest(list []snapshotGroupJSON, g *fsm.Group, n int) []snapshotGroupJSON {
	at, _ := slices.BinarySearchFunc(list, g.Len(), func(have snapshotGroupJSON, size int) int {
		return cmp.Or(cmp.Compare(size, have.Members), -1)
	})
	if at == n {
		return list
	}
	list = slices.Insert(list, at, snapshotGroupJSON{g.Name, g.Len(), g.Revision, hex64(g.Fingerprint())})
	return list[:min(len(list), n)]
}

func printSnapshot(w io.Writer, s snapshotJSON) error {
	fmt.Fprintf(w, "cluster %s  id %s  index %d  term %d\n", printable(s.Cluster), s.ClusterID, s.Index, s.Term)
	fmt.Fprintf(w, "saved at %s by node %s, version %s\n", s.SavedAt.Format(time.RFC3339), printable(s.SavedBy), printable(cmp.Or(s.Version, "unknown")))
	fmt.Fprintf(w, "format %d, %s in %d parts, digest %v: the file is whole\n", s.Format, bytesText(s.Bytes), s.Parts, s.Digest)
	fmt.Fprintf(w, "%s, %s, %s, %s\n", count(s.Groups, "group", "groups"), count(s.Members, "member", "members"),
		count(len(s.Nodes), "node", "nodes"), count(s.Fences, "fence", "fences"))
	fmt.Fprintln(w, tokensText(s.Tokens))
	t := newTable(w)
	if len(s.Nodes) > 0 {
		t.blank()
		t.row("NODE", "BIND", "ADDR", "VERSION")
	}
	for _, n := range s.Nodes {
		t.row(n.ID, n.Bind, n.Addr, n.Version)
	}
	if err := t.flush(); err != nil || s.Groups == 0 {
		return err
	}
	t = newTable(w)
	t.blank()
	t.row("LARGEST GROUP", "MEMBERS", "REVISION", "FINGERPRINT")
	for _, g := range s.LargestGroups {
		t.row(g.Group, g.Members, g.Revision, g.Fingerprint)
	}
	return t.flush()
}

func tokensText(tokens []snapshotTokenJSON) string {
	if len(tokens) == 0 {
		return "no tokens: every call is allowed to everybody"
	}
	names := make([]string, len(tokens))
	for i, t := range tokens {
		names[i] = printable(t.Name)
	}
	return count(len(tokens), "token", "tokens") + ": " + strings.Join(names, ", ")
}
