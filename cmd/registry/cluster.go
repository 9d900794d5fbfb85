package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

type statusJSON struct {
	Cluster   string `json:"cluster"`
	ClusterID string `json:"cluster_id"`
	Leader    string `json:"leader"`
	Term      uint64 `json:"term"`
	Error     string `json:"error"` // why there is no leader
	levelJSON
	Nodes []nodeJSON `json:"nodes"`
}

type nodeJSON struct {
	ID           string   `json:"id"`
	Bind         string   `json:"bind"`
	Addr         string   `json:"addr"`
	Role         string   `json:"role"`
	Voter        bool     `json:"voter"`
	Ready        bool     `json:"ready"`
	AppliedIndex uint64   `json:"applied_index"`
	CommitIndex  uint64   `json:"commit_index"`
	Digest       string   `json:"digest"` // empty when the node does not answer
	Lag          string   `json:"lag"`
	Version      string   `json:"version"`
	Zone         string   `json:"zone"`     // empty: none is named
	Supports     int      `json:"supports"` // newest feature level; 0 when the node does not answer
	Error        string   `json:"error"`
	Alarms       []string `json:"alarms"`

	// Absent: the leader reaches the node, or removes none.
	Removal *removalJSON `json:"removal,omitempty"`
}

type removalJSON struct {
	Unreachable string `json:"unreachable"`
	RemovedIn   string `json:"removed_in"` // empty when it is kept
	Kept        string `json:"kept"`       // why
}

func toRemovalJSON(r *sdk.Removal) *removalJSON {
	if r == nil {
		return nil
	}
	out := &removalJSON{Unreachable: r.Unreachable.String(), Kept: r.Kept}
	if r.Kept == "" {
		out.RemovedIn = r.RemovedIn.String()
	}
	return out
}

func toStatusJSON(s sdk.Status) statusJSON {
	out := statusJSON{Cluster: s.Cluster, ClusterID: s.ClusterID, Leader: s.Leader, Term: s.Term, Error: noLeader(s), levelJSON: toLevelJSON(s), Nodes: []nodeJSON{}}
	for _, n := range s.Nodes {
		out.Nodes = append(out.Nodes, nodeJSON{
			ID: n.ID, Bind: n.Bind, Addr: n.Addr, Role: roleText(n), Voter: n.Voter, Ready: n.Ready,
			AppliedIndex: n.AppliedIndex, CommitIndex: n.CommitIndex, Digest: digestText(n),
			Lag: lagText(n.Lag), Version: n.Version, Zone: n.Zone, Supports: n.FeatureLevel, Error: n.Error, Alarms: append([]string{}, n.Alarms...),
			Removal: toRemovalJSON(n.Removal),
		})
	}
	return out
}

// roleText is the role of a node, also of one that does not answer.
func roleText(n sdk.NodeStatus) string { return cmp.Or(n.Role, "unreachable") }

// lagText is the lag of a node.
func lagText(lag time.Duration) string {
	if lag >= sdk.UnknownLag {
		return "unknown"
	}
	return lag.String()
}

// digestText is empty for a node that does not answer: no digest is not digest 0.
func digestText(n sdk.NodeStatus) string {
	if n.Role == "" {
		return ""
	}
	return hex64(n.Digest).String()
}

func clusterCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "cluster",
		Usage:    "look at the nodes and change which they are",
		Category: categoryCluster,
		Subcommands: []*cli.Command{
			clusterStatusCommand(e), clusterJoinCommand(e), clusterRemoveCommand(e), clusterLeaveCommand(e), clusterReplaceCommand(e), clusterTransferCommand(e),
			clusterLevelCommand(e),
		},
	}
}

func clusterStatusCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "status",
		Usage:       "list the nodes: role, applied index, digest of the state",
		Description: "Any node answers. The exit code is 5 if it knows no leader.",
		Flags:       clientFlags(jsonFlag()),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				status, err := client.Status(ctx, "")
				if err != nil {
					return err
				}
				if c.Bool(flagJSON) {
					err = writeJSON(e.stdout, toStatusJSON(status))
				} else {
					err = printStatus(e.stdout, status)
				}
				if why := noLeader(status); err == nil && why != "" {
					err = &exitError{code: exitUnavailable, err: errors.New(why)}
				}
				return err
			})
		},
	}
}

func printStatus(w io.Writer, s sdk.Status) error {
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(w, "cluster %s  id %s  leader %s  term %d  feature level %d\n\n", s.Cluster, cmp.Or(s.ClusterID, "none"), leader, s.Term, s.FeatureLevel)
	columns := []string{"NODE", "ROLE", "BIND", "ADDR", "APPLIED", "DIGEST", "READY", "VERSION"}
	zones := slices.ContainsFunc(s.Nodes, func(n sdk.NodeStatus) bool { return n.Zone != "" })
	if zones {
		columns = append(columns, "ZONE")
	}
	t := newTable(w, columns...)
	for _, n := range s.Nodes {
		row := []any{n.ID, roleText(n), n.Bind, n.Addr, "", "", "", ""}
		if n.Role != "" {
			row = []any{n.ID, n.Role, n.Bind, n.Addr, n.AppliedIndex, digestText(n), n.Ready, n.Version}
		}
		if zones {
			row = append(row, n.Zone)
		}
		t.row(row...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	printNodeErrors(w, s.Nodes)
	if text := levelText(s); text != "" {
		fmt.Fprintf(w, "\n%s\n", text)
	}
	return nil
}

// printNodeErrors says why nodes could not be asked, and what is wrong with them.
func printNodeErrors(w io.Writer, nodes []sdk.NodeStatus) {
	warn := func(s string) string { return s } // on a terminal in red
	if useColor(w) {
		warn = red
	}
	for _, n := range nodes {
		if n.Error != "" {
			fmt.Fprintf(w, "\n%s\n", warn(n.ID+": "+oneLine(n.Error)))
		}
		if r := n.Removal; r != nil {
			fmt.Fprintf(w, "\n%s\n", warn(n.ID+": "+removalText(r)))
		}
		for _, alarm := range n.Alarms {
			fmt.Fprintf(w, "\n%s\n", warn(n.ID+": ALARM: "+oneLine(alarm)))
		}
	}
}

// removalText is what the leader does with a voter that it does not reach.
func removalText(r *sdk.Removal) string {
	text := fmt.Sprintf("the leader has not reached it for %s, and ", r.Unreachable.Round(time.Second))
	if r.Kept != "" {
		return text + "keeps it: " + oneLine(r.Kept)
	}
	return text + "removes it in " + r.RemovedIn.Round(time.Second).String()
}

func clusterJoinCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "join",
		Usage:       "take a running, empty node into the cluster",
		ArgsUsage:   "BIND",
		Description: "BIND is the node's bind address. Start such a node with \"registry serve -wait\".",
		Flags:       clientFlags(&cli.BoolFlag{Name: "nonvoter", Usage: "it gets the data but no vote"}, jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "BIND")
			if err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				id, err := client.Join(ctx, args[0], c.Bool("nonvoter"))
				if err != nil {
					return err
				}
				return printDone(e, c, map[string]any{"id": id}, "node %s joined", id)
			})
		},
	}
}

func clusterRemoveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "remove",
		Usage:     "take a node out of the cluster for good",
		ArgsUsage: "NODE",
		Description: "Its data directory cannot rejoin. To restart a node, just stop and start it.\n" +
			"Refused if no majority of the other voters would be up. Says how many nodes may be lost\n" +
			"then, " + confirmRule,
		Flags: clientFlags(yesFlag(), jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "NODE")
			if err != nil {
				return err
			}
			return change(c, func(l *link) error { return confirmRemove(e, c, l, args[0]) }, func(ctx context.Context, l *link) error {
				if err := l.Remove(ctx, args[0]); err != nil {
					return err
				}
				return printDone(e, c, map[string]any{"id": args[0]}, "node %s removed", args[0])
			})
		},
	}
}

func clusterLeaveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "leave",
		Usage:     "let a running node leave the cluster for good, and end without an error",
		ArgsUsage: "NODE",
		Description: "The node is asked itself, at its own client address. It hands leadership over, is\n" +
			"removed, and ends with exit code 0, where a node that was removed ends with 4. Its data\n" +
			"directory cannot rejoin. Refused like remove. Says how many nodes may be lost then, " + confirmRule,
		Flags: clientFlags(yesFlag(), jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "NODE")
			if err != nil {
				return err
			}
			return clusterLeave(e, c, args[0])
		},
	}
}

func clusterLeave(e *env, c *cli.Context, id string) error {
	l, err := dialLink(c)
	if err != nil {
		return err
	}
	defer l.Close()
	nodes, err := l.nodes(c)
	if err != nil {
		return err
	}
	node, isNode := findNode(nodes, id)
	if !isNode {
		return &exitError{code: exitNotFound, err: fmt.Errorf("there is no node %q", id)}
	}
	if err := confirm(e, c, removeEffect(nodes, node)); err != nil {
		return err
	}
	conn, err := dialDirect(node.Addr, l.reach)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = l.ask(c, func(ctx context.Context) error {
		ctx, err := forCluster(ctx, c.String(flagCluster))
		if err != nil {
			return err
		}
		if ctx, err = authorized(ctx, c.String(flagTokenFile)); err != nil {
			return err
		}
		_, err = registrypb.NewClusterClient(conn).Leave(ctx, &registrypb.LeaveRequest{Id: id})
		return err
	})
	if err != nil {
		return err
	}
	return printDone(e, c, map[string]any{"id": id}, "node %s left", id)
}

func clusterTransferCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "transfer",
		Usage:     "hand leadership to a voter, by default to the one that is furthest ahead",
		ArgsUsage: "[NODE]",
		Flags:     clientFlags(jsonFlag()),
		Action: func(c *cli.Context) error {
			if c.Args().Len() > 1 {
				return unexpected(c, c.Args().Get(1))
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				leader, err := client.Transfer(ctx, c.Args().First())
				if err != nil {
					return err
				}
				return printDone(e, c, map[string]any{"leader": leader}, "node %s leads", leader)
			})
		},
	}
}
