package main

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

type digestJSON struct {
	Group string           `json:"group"`
	Equal bool             `json:"equal"` // no two nodes at an equal index differ
	Nodes []nodeDigestJSON `json:"nodes"`
}

type nodeDigestJSON struct {
	ID           string `json:"id"`
	AppliedIndex uint64 `json:"applied_index"`
	Revision     uint64 `json:"revision"`
	Fingerprint  string `json:"fingerprint"` // empty, like the digest, when the node does not answer
	Digest       string `json:"digest"`
	Error        string `json:"error,omitempty"`
}

func ringDigestCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "digest",
		Usage:     "show every node's fingerprint of the ring and digest of the state",
		ArgsUsage: "GROUP",
		Description: "Nodes at an equal applied index must have equal digests, and at an equal group\n" +
			"revision equal fingerprints; the exit code is 7 if they differ.",
		Flags: clientFlags(jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "GROUP")
			if err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				// Members tells an unknown group from one that is empty; Status does not.
				if _, err := client.Members(ctx, args[0]); err != nil {
					return err
				}
				status, err := client.Status(ctx, args[0])
				if err != nil {
					return err
				}
				return printDigests(e.stdout, c.Bool(flagJSON), args[0], status)
			})
		},
	}
}

func printDigests(w io.Writer, asJSON bool, group string, s sdk.Status) error {
	differs := digestsDiffer(s.Nodes)
	if asJSON {
		if err := writeJSON(w, toDigestJSON(group, differs == nil, s.Nodes)); err != nil {
			return err
		}
		return differs
	}
	t := newTable(w, "NODE", "APPLIED", "REVISION", "FINGERPRINT", "DIGEST")
	for _, n := range s.Nodes {
		if n.Role == "" {
			t.row(n.ID, "", "", "", "")
			continue
		}
		t.row(n.ID, n.AppliedIndex, n.Revision, hex64(n.Fingerprint), hex64(n.Digest))
	}
	if err := t.flush(); err != nil {
		return err
	}
	printNodeErrors(w, s.Nodes)
	return differs
}

func toDigestJSON(group string, equal bool, nodes []sdk.NodeStatus) digestJSON {
	out := digestJSON{Group: group, Equal: equal, Nodes: []nodeDigestJSON{}}
	for _, n := range nodes {
		node := nodeDigestJSON{ID: n.ID, AppliedIndex: n.AppliedIndex, Revision: n.Revision, Digest: digestText(n), Error: n.Error}
		if n.Role != "" {
			node.Fingerprint = hex64(n.Fingerprint).String()
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out
}

// digestsDiffer compares what must be equal. Nodes at different indexes are not
// compared: one of them is behind, which is no fault. A revision is the index
// of the group's last change, so equal revisions mean equal groups.
func digestsDiffer(nodes []sdk.NodeStatus) error {
	byIndex, byRevision := map[uint64]sdk.NodeStatus{}, map[uint64]sdk.NodeStatus{}
	for _, n := range nodes {
		if n.Role == "" {
			continue
		}
		if other, ok := byIndex[n.AppliedIndex]; ok && other.Digest != n.Digest {
			return checkErrorf("nodes %s and %s differ at index %d: digest %v and %v",
				other.ID, n.ID, n.AppliedIndex, hex64(other.Digest), hex64(n.Digest))
		}
		if other, ok := byRevision[n.Revision]; ok && other.Fingerprint != n.Fingerprint {
			return checkErrorf("the rings of nodes %s and %s differ at revision %d: fingerprint %v and %v",
				other.ID, n.ID, n.Revision, hex64(other.Fingerprint), hex64(n.Fingerprint))
		}
		byIndex[n.AppliedIndex], byRevision[n.Revision] = n, n
	}
	return nil
}
