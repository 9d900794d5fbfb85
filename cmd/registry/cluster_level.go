package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

type levelJSON struct {
	Level int `json:"feature_level"`
	// Newest is the newest level that any node supports, and HeldBack are the nodes that
	// do not support it or do not answer.
	Newest   int      `json:"newest_feature_level"`
	HeldBack []string `json:"held_back_by"`
}

func toLevelJSON(s sdk.Status) levelJSON {
	out := levelJSON{Level: s.FeatureLevel, Newest: s.FeatureLevel, HeldBack: []string{}}
	for _, n := range s.Nodes {
		out.Newest = max(out.Newest, n.FeatureLevel)
	}
	for _, n := range s.Nodes {
		if out.Newest > s.FeatureLevel && n.FeatureLevel < out.Newest {
			out.HeldBack = append(out.HeldBack, n.ID)
		}
	}
	return out
}

// levelText says what holds the newest level back; empty: the cluster has it.
func levelText(s sdk.Status) string {
	l := toLevelJSON(s)
	if l.Newest == l.Level {
		return ""
	}
	if len(l.HeldBack) == 0 {
		return fmt.Sprintf("all nodes support feature level %d; to raise it: registry cluster feature-level -raise", l.Newest)
	}
	var nodes []string
	for _, id := range l.HeldBack {
		n, _ := findNode(s.Nodes, id)
		why := "does not answer"
		if n.Role != "" {
			why = "version " + cmp.Or(n.Version, "unknown")
		}
		nodes = append(nodes, fmt.Sprintf("%s (%s)", id, why))
	}
	return fmt.Sprintf("feature level %d is held back by %s", l.Newest, strings.Join(nodes, ", "))
}

func clusterLevelCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "feature-level",
		Usage: "show which features the cluster may use, or raise that after an upgrade",
		Description: "With -raise, the cluster may use what the newest version added. All nodes have to run it.\n" +
			"Earlier versions are refused from then on: there is no way back. It " + confirmRule,
		Flags: clientFlags(&cli.BoolFlag{Name: "raise", Usage: "to the newest level that the leader supports"}, yesFlag(), jsonFlag()),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			if c.Bool("raise") {
				return raiseLevel(e, c)
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				status, err := client.Status(ctx, "")
				if err != nil {
					return err
				}
				if c.Bool(flagJSON) {
					return writeJSON(e.stdout, toLevelJSON(status))
				}
				return printLevel(e.stdout, status)
			})
		},
	}
}

func raiseLevel(e *env, c *cli.Context) error {
	ask := func(l *link) error {
		if c.Bool("yes") {
			return nil
		}
		var level levelJSON
		err := l.ask(c, func(ctx context.Context) error {
			status, err := l.Status(ctx, "")
			level = toLevelJSON(status)
			return err
		})
		if err != nil || level.Newest == level.Level || len(level.HeldBack) > 0 {
			return err // nothing changes, or it is refused
		}
		return confirm(e, c, fmt.Sprintf("the feature level would be raised from %d to %d, and no node could go back to an earlier version", level.Level, level.Newest))
	}
	return change(c, ask, func(ctx context.Context, l *link) error {
		level, err := l.RaiseFeatureLevel(ctx)
		if err != nil {
			return err
		}
		return printDone(e, c, map[string]any{"feature_level": level}, "the cluster has feature level %d", level)
	})
}

func printLevel(w io.Writer, s sdk.Status) error {
	fmt.Fprintf(w, "feature level %d\n\n", s.FeatureLevel)
	t := newTable(w, "NODE", "VERSION", "SUPPORTS")
	for _, n := range s.Nodes {
		supports := "unknown"
		if n.FeatureLevel > 0 {
			supports = fmt.Sprint(n.FeatureLevel)
		}
		t.row(n.ID, n.Version, supports)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if text := levelText(s); text != "" {
		fmt.Fprintf(w, "\n%s\n", text)
	}
	return nil
}
