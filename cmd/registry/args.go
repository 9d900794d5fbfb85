package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// normalize rewrites a command line into the order that the flag parser of
// package cli understands: command, flags, "--", arguments. So flags may also
// follow the arguments, as in "match web user-1 -json". Unknown commands and
// flags are found here, with a suggestion, and so is the wish for help: then
// the command is returned that it is about. "help a b" is "a b -help".
//
//	match web -n 2 user-1 -json   →   match -n 2 -json -- web user-1
func normalize(app *cli.App, args []string) (_ []string, help *cli.Command, _ error) {
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "-help")
	}
	if len(args) == 1 && slices.Contains([]string{"-v", "-version", "--version"}, args[0]) {
		return []string{"version"}, nil, nil
	}
	root := rootOf(app)
	path, cmd, rest, err := descend(root, args)
	if err != nil {
		return nil, nil, err
	}
	line, err := splitLine(cmd, rest)
	if line.help {
		return nil, cmd, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if err := checkEnvironment(slices.Concat(root.Flags, cmd.Flags)); err != nil {
		return nil, nil, err
	}
	if cmd.Name == "register" && len(line.args) > 0 {
		return nil, nil, usageErrorf("register: unexpected argument %q", line.args[0]).
			withHint("a command to run goes after --\n  %s", usageLine(cmd))
	}
	if err := checkNoCommandAfterFlags(root, cmd, line); err != nil {
		return nil, nil, err
	}
	out := slices.Concat(path, line.flags)
	if len(line.args)+len(line.after) > 0 {
		out = append(out, "--")
	}
	return slices.Concat(out, line.args, line.after), nil, nil
}

// rootOf is the program itself as a command.
func rootOf(app *cli.App) *cli.Command {
	return &cli.Command{Name: app.Name, HelpName: app.Name, Subcommands: app.Commands, Flags: app.Flags}
}

// descend follows the names of commands at the start of args.
func descend(cmd *cli.Command, args []string) (path []string, _ *cli.Command, rest []string, err error) {
	for len(args) > 0 && len(cmd.Subcommands) > 0 && !strings.HasPrefix(args[0], "-") {
		sub := cmd.Command(args[0])
		if sub == nil {
			return nil, nil, nil, unknownCommand(cmd, args[0])
		}
		if sub.HelpName == "" {
			sub.HelpName = cmd.HelpName + " " + sub.Name
		}
		path, args, cmd = append(path, args[0]), args[1:], sub
	}
	return path, cmd, args, nil
}

func unknownCommand(parent *cli.Command, name string) error {
	var names []string
	for _, c := range parent.Subcommands {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	suggestion := didYouMean(name, names)
	if suggestion == "" {
		suggestion = belowYouMean(parent, name)
	}
	return usageErrorf("%s: unknown command %q", parent.HelpName, name).withHint("%ssee %s -help", suggestion, parent.HelpName)
}

// belowYouMean names the commands of that name one level down: "status" is
// "cluster status".
func belowYouMean(parent *cli.Command, name string) string {
	var found []string
	for _, c := range parent.Subcommands {
		if sub := c.Command(name); sub != nil {
			found = append(found, strconv.Quote(c.Name+" "+sub.Name))
		}
	}
	if len(found) == 0 {
		return ""
	}
	return fmt.Sprintf("did you mean %s? ", orList(found))
}

// checkNoCommandAfterFlags refuses "registry -timeout 1s members web": flags
// before the command would be those of serve.
func checkNoCommandAfterFlags(root, cmd *cli.Command, l commandLine) error {
	if len(l.args) == 0 || len(cmd.Subcommands) == 0 {
		return nil
	}
	sub := cmd.Command(l.args[0])
	if sub == nil {
		return unknownCommand(cmd, l.args[0])
	}
	what := "flags"
	if cmd.Name == root.Name {
		what = "flags of a command"
	}
	return usageErrorf("%s come after its name: %s %s %s …", what, cmd.HelpName, sub.Name, strings.Join(l.flags, " "))
}

// commandLine is what follows the name of a command.
type commandLine struct {
	flags []string // with their values
	args  []string // before "--"
	after []string // after "--"
	help  bool
}

// splitLine tells flags from arguments. The error is about the first flag that is
// unknown, or whose value does not parse; the rest of the line is read all the
// same, since it may ask for help.
func splitLine(cmd *cli.Command, rest []string) (l commandLine, err error) {
	for i := 0; i < len(rest); i++ {
		a := rest[i]
		switch {
		case a == "--":
			l.after = rest[i+1:]
			return l, err
		case a == "-" || !strings.HasPrefix(a, "-"):
			l.args = append(l.args, a)
		case isHelp(a):
			l.help = true
		default:
			given := []string{a}
			takesValue, wrong := flagTakesValue(cmd, a)
			if takesValue && i+1 < len(rest) {
				i++
				given = append(given, rest[i])
			}
			if wrong == nil {
				wrong = checkFlag(cmd, given)
			}
			if err == nil {
				err = wrong
			}
			l.flags = append(l.flags, given...)
		}
	}
	return l, err
}

// checkFlag is checkValue for a flag as it was given: with its value, -FLAG=VALUE,
// or alone, which is enough for one that is true or false.
func checkFlag(cmd *cli.Command, given []string) error {
	f, name, value, hasValue := findFlag(cmd, given[0])
	if len(given) > 1 {
		value, hasValue = given[1], true
	}
	if !hasValue {
		if _, isBool := f.(*cli.BoolFlag); isBool {
			return nil
		}
		return usageErrorf("-%s needs a value", name).withHint("see %s -help", cmd.HelpName)
	}
	if err := checkValue(f, "-"+name, value); err != nil {
		return err.withHint("see %s -help", cmd.HelpName)
	}
	return nil
}

// findFlag finds the flag that an argument gives, maybe with its value after "=".
func findFlag(cmd *cli.Command, a string) (f cli.Flag, name, value string, hasValue bool) {
	name, value, hasValue = strings.Cut(strings.TrimLeft(a, "-"), "=")
	for _, f := range cmd.Flags {
		if slices.Contains(f.Names(), name) {
			return f, name, value, hasValue
		}
	}
	return nil, name, value, hasValue
}

func isHelp(arg string) bool {
	name := strings.TrimLeft(arg, "-")
	return name == "help" || name == "h"
}

// flagTakesValue reports whether the argument after flag a belongs to it. A
// flag that the command does not have is an error.
func flagTakesValue(cmd *cli.Command, a string) (bool, error) {
	f, name, _, hasValue := findFlag(cmd, a)
	if f != nil {
		_, isBool := f.(*cli.BoolFlag)
		return !isBool && !hasValue, nil
	}
	var names []string
	for _, f := range cmd.Flags {
		for _, n := range f.Names() {
			names = append(names, "-"+n)
		}
	}
	err := usageErrorf("%s: unknown flag -%s", cmd.HelpName, name)
	suggestion := didYouMean("-"+name, names)
	if suggestion == "" && len(cmd.Subcommands) == 0 { // it may stand for an argument
		suggestion = usageLine(cmd) + "\n  "
	}
	return false, err.withHint("%ssee %s -help", suggestion, cmd.HelpName)
}

// usageLine shows the arguments and the flags that a command needs.
func usageLine(c *cli.Command) string {
	return strings.TrimSpace(fmt.Sprintf("usage: %s [flags] %s", c.HelpName, c.ArgsUsage))
}

// positional checks the number of arguments against their names. A last name
// that ends in "…" stands for one or more.
func positional(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	many := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "…")
	if len(args) < len(names) {
		return nil, usageErrorf("%s is missing", strings.TrimSuffix(names[len(args)], "…")).withHint("%s", usageLine(c.Command))
	}
	if len(args) > len(names) && !many {
		return nil, unexpected(c, args[len(names)])
	}
	return args, nil
}

func unexpected(c *cli.Context, arg string) error {
	return usageErrorf("unexpected argument %q", arg).withHint("%s", usageLine(c.Command))
}

// didYouMean names the candidate nearest to what was typed, if one is near: a
// third of it may differ. Dashes at the start are no part of a name.
func didYouMean(typed string, candidates []string) string {
	name := strings.TrimLeft(typed, "-")
	best, bestAt := "", (len(name)+1)/3+1
	for _, c := range candidates {
		other := strings.TrimLeft(c, "-")
		if d := distance(name, other); d < bestAt && d < max(len(name), len(other)) {
			best, bestAt = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q? ", best)
}

// distance is Levenshtein's: insertions, deletions and replacements from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

func orList(names []string) string  { return wordList(names, "or") }
func andList(names []string) string { return wordList(names, "and") }

func wordList(names []string, word string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " " + word + " " + names[len(names)-1]
}
