package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

// confirmRule is part of the description of every command that calls confirm.
const confirmRule = "asks on a terminal and otherwise needs -yes."

func yesFlag() cli.Flag { return &cli.BoolFlag{Name: "yes", Usage: "do it without asking"} }

// confirm lets a change pass that the user wants. It is for all that moves keys
// or weakens the cluster; effect says how.
func confirm(e *env, c *cli.Context, effect string) error {
	if c.Bool("yes") {
		return nil
	}
	refused := checkErrorf("not done: %s", effect)
	if !isTerminal(e.stdin) {
		return refused.withHint("-yes does it")
	}
	fmt.Fprintf(e.stderr, "%s. Go on? [y/N] ", effect)
	if answer, err := readLine(c.Context, e.stdin); err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") {
		return refused
	}
	return nil
}

// change makes a change that confirm may ask about first.
func change(c *cli.Context, confirm func(*link) error, do func(context.Context, *link) error) error {
	l, err := dialLink(c)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := confirm(l); err != nil {
		return err
	}
	return l.ask(c, func(ctx context.Context) error { return do(ctx, l) })
}

// readLine reads a line, or gives up with ctx: Ctrl-C answers a question too.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // a read cannot be broken off; it ends with the process
		line, err := bufio.NewReader(r).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case a := <-got:
		return a.line, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// confirmMember shows which keys move when a member changes, and asks if any
// do. edit changes the member, or empties its id when it is to go. What is not
// there moves nothing: the write then says so.
func confirmMember(e *env, c *cli.Context, l *link, group, id string, edit func(*ring.Member)) error {
	if c.Bool("yes") {
		return nil
	}
	var g *groupRing
	err := l.ask(c, func(ctx context.Context) (err error) {
		g, err = fetchRing(ctx, c, l.Client, group)
		return err
	})
	if errors.Is(err, sdk.ErrUnknownGroup) {
		return nil
	}
	if err != nil {
		return err
	}
	members := ringMembers(g.members)
	i := slices.IndexFunc(members, func(m ring.Member) bool { return m.ID == id })
	if i < 0 {
		return nil
	}
	if edit(&members[i]); members[i].ID == "" {
		members = slices.Delete(members, i, i+1)
	}
	after, err := ring.New(paramsOf(g.group), members)
	if err != nil {
		return err
	}
	diff := diffOf(g.ring, after)
	if len(diff.Moves) == 0 {
		return nil
	}
	if err := printMoves(e.stderr, diff.Moves); err != nil {
		return err
	}
	return confirm(e, c, fmt.Sprintf("%s of the keys of %s would move", diff.Moved.Percent(), group)+awayEffect(members))
}

// awayEffect warns when no member would be left that serves.
func awayEffect(members []ring.Member) string {
	held := 0
	for _, m := range members {
		switch m.State {
		case ring.Active:
			return ""
		case ring.Held:
			held++
		}
	}
	if held == 0 {
		return ", and no member would be left that owns keys"
	}
	return fmt.Sprintf(", and only %s would be left, which %s not serve", count(held, "held member", "held members"), plural(held, "does", "do"))
}

// confirmRemove says what is left of the cluster without a node.
func confirmRemove(e *env, c *cli.Context, l *link, id string) error {
	if c.Bool("yes") {
		return nil
	}
	nodes, err := l.nodes(c)
	if err != nil {
		return err
	}
	gone, isNode := findNode(nodes, id)
	if !isNode {
		return nil // the write says so
	}
	return confirm(e, c, removeEffect(nodes, gone))
}

// confirmLoss says how many members would go at once.
func confirmLoss(e *env, c *cli.Context, l *link, group string) error {
	if c.Bool("yes") {
		return nil
	}
	var guard sdk.Guard
	err := l.ask(c, func(ctx context.Context) (err error) {
		guard, err = l.Guard(ctx, group)
		return err
	})
	if err != nil || guard.Silent == 0 {
		return err
	}
	return confirm(e, c, fmt.Sprintf("%s of %s would go, and %s keys move", count(guard.Silent, "silent member", "silent members"), group, plural(guard.Silent, "its", "their")))
}

// removeEffect says what a removal leaves, and what the loss of a node does then.
func removeEffect(nodes []sdk.NodeStatus, gone sdk.NodeStatus) string {
	if !gone.Voter {
		return fmt.Sprintf("%s, which has no vote, would leave for good", gone.ID)
	}
	voters, answering := 0, 0
	for _, n := range nodes {
		if n.Voter && n.ID != gone.ID {
			voters++
			if n.Role != "" {
				answering++
			}
		}
	}
	effect := fmt.Sprintf("%s would leave for good: %s now, %d afterwards", gone.ID, count(voters+1, "voter", "voters"), voters)
	if voters > 0 { // the last voter stays
		effect += ": " + tolerated(voters)
	}
	if silent := voters - answering; silent > 0 {
		effect += fmt.Sprintf("; %d of them %s not answer now", silent, plural(silent, "does", "do"))
	}
	return effect
}

// tolerated says how many of the voters may be lost.
func tolerated(voters int) string {
	lost := (voters - 1) / 2
	if lost == 0 {
		return "the loss of no node is tolerated"
	}
	return fmt.Sprintf("the loss of %s is tolerated", count(lost, "node", "nodes"))
}
