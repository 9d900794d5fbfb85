package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

type digestJSON struct {
	Group string           `json:"group"`
	Equal bool             `json:"equal"` // no two nodes differ in what must be equal
	Nodes []nodeDigestJSON `json:"nodes"`
}

type nodeDigestJSON struct {
	ID           string `json:"id"`
	AppliedIndex uint64 `json:"applied_index"`
	Revision     uint64 `json:"revision"`
	Fingerprint  string `json:"fingerprint"` // empty, like the digests, when the node does not answer
	RingDigest   string `json:"ring_digest"` // empty also when the node could not build the ring
	Digest       string `json:"digest"`
	Error        string `json:"error"`
}

func ringDigestCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "digest",
		Usage:     "show every node's fingerprint, and the digests of its ring and state",
		ArgsUsage: "GROUP",
		Description: "Nodes at an equal applied index must have equal digests of the state, and at an\n" +
			"equal group revision equal fingerprints, which name what the ring is built from.\n" +
			"Of equal fingerprints all must build equal rings, with equal ring digests. The\n" +
			"exit code is 7 if they differ.",
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
	t := newTable(w, "NODE", "APPLIED", "REVISION", "FINGERPRINT", "RING DIGEST", "DIGEST")
	for _, n := range s.Nodes {
		if n.Role == "" {
			t.row(n.ID, "", "", "", "", "")
			continue
		}
		t.row(n.ID, n.AppliedIndex, n.Revision, hex64(n.Fingerprint), ringDigestText(n), hex64(n.Digest))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if noRing(n) {
			fmt.Fprintf(w, "\n%s: %s\n", n.ID, noRingText)
		}
	}
	printNodeErrors(w, s.Nodes)
	return differs
}

func toDigestJSON(group string, equal bool, nodes []sdk.NodeStatus) digestJSON {
	out := digestJSON{Group: group, Equal: equal, Nodes: []nodeDigestJSON{}}
	for _, n := range nodes {
		node := nodeDigestJSON{
			ID: n.ID, AppliedIndex: n.AppliedIndex, Revision: n.Revision,
			RingDigest: ringDigestText(n), Digest: digestText(n), Error: n.Error,
		}
		if n.Role != "" {
			node.Fingerprint = hex64(n.Fingerprint).String()
		}
		if noRing(n) && node.Error == "" {
			node.Error = noRingText
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out
}

const noRingText = "the node could not build the ring"

// noRing: the node answers and has no ring of the group.
func noRing(n sdk.NodeStatus) bool { return n.Role != "" && n.RingDigest == 0 }

// ringDigestText is empty for a node that does not answer or has no ring.
func ringDigestText(n sdk.NodeStatus) string {
	if n.RingDigest == 0 {
		return ""
	}
	return hex64(n.RingDigest).String()
}

// digestsDiffer compares what must be equal. Nodes at different indexes are not
// compared: one of them is behind, which is no fault. A revision is the index
// of the group's last change, so equal revisions mean equal groups. Rings are
// compared where their inputs are equal: other inputs are found before.
func digestsDiffer(nodes []sdk.NodeStatus) error {
	byIndex, byRevision, byFingerprint := map[uint64]sdk.NodeStatus{}, map[uint64]sdk.NodeStatus{}, map[uint64]sdk.NodeStatus{}
	for _, n := range nodes {
		if n.Role == "" {
			continue
		}
		if other, ok := byIndex[n.AppliedIndex]; ok && other.Digest != n.Digest {
			return checkErrorf("the states of nodes %s and %s differ at index %d: digest %v and %v",
				other.ID, n.ID, n.AppliedIndex, hex64(other.Digest), hex64(n.Digest))
		}
		if other, ok := byRevision[n.Revision]; ok && other.Fingerprint != n.Fingerprint {
			return checkErrorf("the states of nodes %s and %s differ: at revision %d the group has fingerprint %v and %v",
				other.ID, n.ID, n.Revision, hex64(other.Fingerprint), hex64(n.Fingerprint))
		}
		byIndex[n.AppliedIndex], byRevision[n.Revision] = n, n
		if noRing(n) {
			continue
		}
		if other, ok := byFingerprint[n.Fingerprint]; ok && other.RingDigest != n.RingDigest {
			return checkErrorf("nodes %s and %s built different rings of the same members and parameters, fingerprint %v: ring digest %v and %v",
				other.ID, n.ID, hex64(n.Fingerprint), hex64(other.RingDigest), hex64(n.RingDigest))
		}
		byFingerprint[n.Fingerprint] = n
	}
	return nil
}
