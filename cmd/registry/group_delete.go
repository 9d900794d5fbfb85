package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

func groupDeleteCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "delete a group",
		ArgsUsage: "GROUP",
		Description: "A group without members is deleted without a question, because no key moves. A\n" +
			"group with members is deleted only with -force, which removes them too: their\n" +
			"processes learn of it and do not register again. It then says how many they are, " + confirmRule,
		Flags: clientFlags(&cli.BoolFlag{Name: "force", Usage: "remove its members with it"}, yesFlag(), jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "GROUP")
			if err != nil {
				return err
			}
			l, err := dialLink(c)
			if err != nil {
				return err
			}
			defer l.Close()
			return deleteGroup(e, c, l, args[0])
		},
	}
}

func deleteGroup(e *env, c *cli.Context, l *link, group string) error {
	d := sdk.GroupDeletion{Force: c.Bool("force")}
	if d.Force {
		var err error
		if d.ExpectedRevision, err = confirmDelete(e, c, l, group); err != nil {
			return err
		}
	}
	var members int
	err := l.ask(c, func(ctx context.Context) (err error) {
		members, err = l.DeleteGroup(ctx, group, d)
		return err
	})
	if errors.Is(err, sdk.ErrGroupNotEmpty) {
		return (&exitError{code: exitConflict, err: err}).withHint("-force removes its members with it")
	}
	if err != nil {
		return err
	}
	what := "group " + group + " deleted"
	if members > 0 {
		what += " with " + count(members, "member", "members")
	}
	return printDone(e, c, map[string]any{"group": group, "members": members}, "%s", what)
}

// confirmDelete says how many members would go, and returns the revision at which
// that is true; 0 where nobody asked.
func confirmDelete(e *env, c *cli.Context, l *link, name string) (revision uint64, err error) {
	if c.Bool("yes") {
		return 0, nil
	}
	var g sdk.Group
	err = l.ask(c, func(ctx context.Context) (err error) {
		g, _, err = l.Group(ctx, name, sdk.Linearizable()) // what is consented to is what goes
		return err
	})
	if err != nil || g.Members == 0 {
		return g.Revision, err
	}
	effect := fmt.Sprintf("%s would go for good with its %s", name, count(g.Members, "member", "members"))
	return g.Revision, confirm(e, c, effect)
}
