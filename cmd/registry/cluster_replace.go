package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

const (
	flagWithin = "within"
	// replaceEvery is the pause between two looks at the nodes.
	replaceEvery = 200 * time.Millisecond
)

func clusterReplaceCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "replace",
		Usage:     "remove a node when another has become a voter in its place",
		ArgsUsage: "OLD NEW",
		Description: "Start NEW first, with -registries. Waits until it has caught up and is a voter, then\n" +
			"removes OLD, which may be down; its data directory cannot rejoin. After an\n" +
			"interruption run it again. Says how many nodes may be lost then, " + confirmRule,
		Flags: clientFlags(
			&cli.DurationFlag{Name: flagWithin, Usage: "how long NEW may take to become a voter", Value: 2 * time.Minute},
			yesFlag(), jsonFlag()),
		Action: func(c *cli.Context) error { return clusterReplace(e, c) },
	}
}

func clusterReplace(e *env, c *cli.Context) error {
	args, err := positional(c, "OLD", "NEW")
	if err != nil {
		return err
	}
	from, to := args[0], args[1]
	if from == to {
		return usageErrorf("OLD and NEW are both %s", from).
			withHint("for a new data directory under the same id: registry cluster remove %s, then start it with -registries", from)
	}
	if d := c.Duration(flagWithin); d <= 0 {
		return usageErrorf("-%s is %v, want more than 0", flagWithin, d)
	}
	l, err := dialLink(c)
	if err != nil {
		return err
	}
	defer l.Close()
	nodes, err := l.nodes(c)
	if err != nil {
		return err
	}
	old, isNode := findNode(nodes, from)
	if isNode {
		err = confirm(e, c, replaceEffect(nodes, old, to))
	} else if now, _ := findNode(nodes, to); !now.Voter { // otherwise an earlier attempt may have removed it
		err = &exitError{code: exitNotFound, err: fmt.Errorf("there is no node %q", from)}
	}
	if err != nil {
		return err
	}
	if err := l.awaitVoter(c, from, to); err != nil {
		return err
	}
	err = l.ask(c, func(ctx context.Context) error { return l.Remove(ctx, from) })
	if err != nil && !errors.Is(err, sdk.ErrUnknownNode) {
		return err
	}
	return printDone(e, c, map[string]any{"removed": from, "voter": to}, "node %s is a voter, and %s is no node", to, from)
}

// nodes asks for the status of all nodes. A node without a leader may not know them, for
// instance because it has not joined.
func (l *link) nodes(c *cli.Context) (nodes []sdk.NodeStatus, err error) {
	err = l.ask(c, func(ctx context.Context) error {
		status, err := l.Status(ctx, "")
		if err == nil && status.Leader == "" {
			err = fmt.Errorf("%w: the node that answered knows none", sdk.ErrNoLeader)
		}
		nodes = status.Nodes
		return err
	})
	return nodes, err
}

func findNode(nodes []sdk.NodeStatus, id string) (sdk.NodeStatus, bool) {
	i := slices.IndexFunc(nodes, func(n sdk.NodeStatus) bool { return n.ID == id })
	if i < 0 {
		return sdk.NodeStatus{}, false
	}
	return nodes[i], true
}

// awaitVoter waits until a node is a voter that can take another one's place.
func (l *link) awaitVoter(c *cli.Context, from, to string) error {
	within := c.Duration(flagWithin)
	end := time.NewTimer(within)
	defer end.Stop()
	tick := time.NewTicker(replaceEvery)
	defer tick.Stop()
	for {
		nodes, err := l.nodes(c)
		why := noVoter(nodes, to)
		switch {
		case errors.Is(err, sdk.ErrNoLeader):
			why = "there is no leader"
		case err != nil:
			return err
		case why == "":
			return nil
		}
		select {
		case <-tick.C:
		case <-c.Context.Done():
			return c.Context.Err()
		case <-end.C:
			return &exitError{code: exitUnavailable, err: fmt.Errorf("%s is not removed: %s after %v", from, why, within)}
		}
	}
}

// noVoter says why a node is no voter that answers; empty: it is.
func noVoter(nodes []sdk.NodeStatus, id string) string {
	n, known := findNode(nodes, id)
	switch {
	case !known:
		return id + " has not joined"
	case n.Role == "":
		return fmt.Sprintf("%s does not answer (%s)", id, oneLine(cmp.Or(n.Error, "no reason is known")))
	case !n.Voter:
		return id + " has no vote"
	case !n.Ready:
		return id + " is not ready"
	}
	return ""
}

// replaceEffect says what is left of the voters with one node in place of another.
func replaceEffect(nodes []sdk.NodeStatus, old sdk.NodeStatus, to string) string {
	now, after := 0, 1
	for _, n := range nodes {
		if !n.Voter {
			continue
		}
		now++
		if n.ID != old.ID && n.ID != to {
			after++
		}
	}
	return fmt.Sprintf("%s would leave for good when %s is a voter: %s now, %d afterwards: %s",
		old.ID, to, count(now, "voter", "voters"), after, tolerated(after))
}
