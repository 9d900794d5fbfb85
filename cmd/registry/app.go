package main

import "github.com/urfave/cli/v2"

// Categories of commands in the help text.
const (
	categoryNode     = "Nodes"
	categoryService  = "Services and keys"
	categoryRing     = "The ring"
	categoryCluster  = "The cluster"
	categorySecurity = "Security"
	categoryProgram  = "This program"
)

// newApp builds the command tree. Flags remember what was parsed into them, so
// every run has a tree of its own.
func newApp(e *env) *cli.App {
	app := &cli.App{
		Name:        "registry",
		HelpName:    "registry",
		Usage:       "a replicated service registry that routes by consistent hashing",
		Description: appDescription,
		Flags:       append(serveFlags(), helpFlag()),
		Action:      serveAction(e),
		Commands: []*cli.Command{
			serveCommand(e), devCommand(e), healthCommand(e), debugCommand(e), migrateLogCommand(e), compactCommand(e), recoverCommand(e),
			registerCommand(e), deregisterCommand(e), membersCommand(e), memberCommand(e),
			groupsCommand(e), groupCommand(e), watchCommand(e), matchCommand(e),
			ringCommand(e), clusterCommand(e), topCommand(e), snapshotCommand(e), benchCommand(e), tlsCommand(e), secretCommand(e), tokenCommand(e),
			versionCommand(e), completionCommand(e), exitCodesCommand(e), manCommand(e), helpCommand(),
		},
		Reader:                    e.stdin,
		Writer:                    e.stdout,
		ErrWriter:                 e.stderr,
		HideHelp:                  true, // normalize finds -help, help.go prints it
		HideVersion:               true, // normalize turns -version into the command
		DisableSliceFlagSeparator: true, // -meta values may contain commas
		OnUsageError:              onUsageError,
		ExitErrHandler:            func(*cli.Context, error) {}, // run reports; nothing below it exits
	}
	for _, c := range app.Commands {
		finish(c)
	}
	app.Setup()
	return app
}

// finish sets what every command shares. The built-in help goes: in "members
// help" the word is the name of a group, and the built-in -help is one flag of
// the whole process, which two runs may not share.
func finish(c *cli.Command) {
	c.HideHelp = true
	c.Flags = append(c.Flags, helpFlag())
	c.OnUsageError = onUsageError
	if c.Action == nil {
		c.Action = func(ctx *cli.Context) error { return missingCommand(ctx.Command) }
	}
	for _, sub := range c.Subcommands {
		finish(sub)
	}
}

func missingCommand(c *cli.Command) error {
	names := make([]string, 0, len(c.Subcommands))
	for _, sub := range c.Subcommands {
		names = append(names, sub.Name)
	}
	return usageErrorf("%s needs a command: %s", c.HelpName, orList(names)).withHint("see %s -help", c.HelpName)
}
