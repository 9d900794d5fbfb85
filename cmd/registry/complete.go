package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"

	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store/raftlog"
)

// completeFlag, as the last argument, asks for what may stand at the cursor.
// Before it come the words before the cursor and the one that the cursor is in,
// which may be empty.
const completeFlag = "--generate-bash-completion"

// completeWait bounds the question for names: a user has pressed a key. Tests wait longer.
var completeWait = time.Second

// printCompletions prints, one a line, what the last of words may become.
func printCompletions(ctx context.Context, w io.Writer, app *cli.App, words []string) {
	if len(words) == 0 {
		return
	}
	words, typed := words[:len(words)-1], words[len(words)-1]
	help := len(words) > 0 && words[0] == "help"
	if help {
		words = words[1:]
	}
	_, cmd, rest, err := descend(rootOf(app), words)
	if err != nil || slices.Contains(rest, "--") {
		return
	}
	l := parsePartial(cmd, rest)
	for _, c := range l.candidates(ctx, typed, help) {
		if strings.HasPrefix(c, typed) && printable(c) == c {
			fmt.Fprintln(w, c)
		}
	}
}

// partialLine is what stands between a command's name and the cursor.
type partialLine struct {
	cmd     *cli.Command
	args    []string
	values  map[string]string // of the flags that were given, by name
	pending string            // the flag whose value is at the cursor
}

func parsePartial(cmd *cli.Command, rest []string) *partialLine {
	l := &partialLine{cmd: cmd, values: map[string]string{}}
	for _, a := range rest {
		if l.pending != "" {
			l.values[l.pending], l.pending = a, ""
			continue
		}
		if a == "-" || !strings.HasPrefix(a, "-") {
			l.args = append(l.args, a)
			continue
		}
		name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		l.values[name] = value
		if takesValue, err := flagTakesValue(cmd, a); err == nil && takesValue {
			l.pending = name
		}
	}
	return l
}

func (l *partialLine) candidates(ctx context.Context, typed string, help bool) []string {
	name, _, isValue := strings.Cut(typed, "=")
	switch {
	case l.pending != "":
		return l.valuesOf(ctx, l.pending)
	case isValue && strings.HasPrefix(typed, "-"):
		var out []string
		for _, v := range l.valuesOf(ctx, strings.TrimLeft(name, "-")) {
			out = append(out, name+"="+v)
		}
		return out
	case strings.HasPrefix(typed, "-"):
		return l.flags(typed)
	}
	var out []string
	for _, sub := range l.cmd.Subcommands {
		if !sub.Hidden {
			out = append(out, sub.Name)
		}
	}
	if help || len(out) > 0 {
		return out
	}
	return l.arguments(ctx)
}

// flags are those that may still be given, with as many dashes as were typed.
func (l *partialLine) flags(typed string) (out []string) {
	dashes := "-"
	if strings.HasPrefix(typed, "--") {
		dashes = "--"
	}
	for _, f := range l.cmd.Flags {
		_, given := l.values[f.Names()[0]]
		if _, repeatable := f.(*cli.StringSliceFlag); !given || repeatable {
			out = append(out, dashes+f.Names()[0])
		}
	}
	return out
}

// valuesOf are what a flag may have as its value; nil when that is not known.
func (l *partialLine) valuesOf(ctx context.Context, flag string) []string {
	switch flag {
	case flagGroup, flagPrefix:
		return l.names(ctx, groupNames)
	case flagID:
		return l.names(ctx, memberNames(l.values[flagGroup]))
	case "leave", "drain", "hold", "activate": // of a group that is an argument
		if len(l.args) > 0 {
			return l.names(ctx, memberNames(l.args[0]))
		}
	case flagState:
		return []string{sdk.StateActive.String(), sdk.StateDraining.String(), sdk.StateHeld.String()}
	case "to", flagLogStore:
		return []string{raftlog.WAL, raftlog.Bolt}
	case "client-auth":
		return []string{"require", "verify-if-given"}
	case flagLogLevel:
		return []string{"debug", "info", "warn", "error"}
	case flagLogFormat:
		return []string{"text", "json"}
	}
	return nil
}

// arguments are what the next argument may be, by its name in the usage; or the flags
// that the usage names, without those that were given.
func (l *partialLine) arguments(ctx context.Context) []string {
	names := strings.Fields(l.cmd.ArgsUsage)
	if len(names) > 0 && strings.HasPrefix(names[0], "-") {
		return slices.DeleteFunc(l.flags("-"), func(flag string) bool { return !slices.Contains(names, flag) })
	}
	if len(l.args) >= len(names) {
		return nil
	}
	switch name := strings.Trim(names[len(l.args)], "[]"); name {
	case "GROUP", "A", "B":
		return l.names(ctx, groupNames)
	case "NODE", "OLD", "NEW":
		return l.names(ctx, nodeNames)
	case "NAME":
		return l.names(ctx, tokenNames)
	case "LEVEL":
		return l.valuesOf(ctx, flagLogLevel)
	case "bash|zsh|fish":
		return strings.Split(name, "|")
	}
	return nil
}

type namesFunc func(context.Context, *sdk.Client) ([]string, error)

// names asks the cluster that the line or the environment names. Without an
// answer there are none.
func (l *partialLine) names(ctx context.Context, ask namesFunc) []string {
	if !slices.ContainsFunc(l.cmd.Flags, func(f cli.Flag) bool { return f.Names()[0] == flagTimeout }) {
		return nil // not a command that talks to a cluster
	}
	target := cmp.Or(l.values[flagRegistries], os.Getenv("REGISTRY_ADDRS"), defaultClientAddr)
	reach := newReach(strings.Split(target, ","))
	if reach.secure(l.tlsValue) != nil {
		return nil
	}
	token, err := withToken(cmp.Or(l.values[flagTokenFile], os.Getenv(tokenFileVariable)))
	if err != nil {
		return nil
	}
	client, err := sdk.Dial(target, sdk.WithDialer(reach.dial), sdk.WithRefreshInterval(0),
		sdk.WithDialOptions(grpc.WithTransportCredentials(reach.credentials())),
		sdk.WithCluster(cmp.Or(l.values[flagCluster], os.Getenv("REGISTRY_CLUSTER"))), token)
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, completeWait)
	defer cancel()
	ctx, stop := reach.untilRefused(ctx, time.Time{})
	defer stop()
	names, err := ask(ctx, client)
	if err != nil {
		return nil // a message would end up in the line that is being typed
	}
	return names
}

func groupNames(ctx context.Context, client *sdk.Client) (out []string, err error) {
	groups, err := client.Groups(ctx)
	for _, g := range groups {
		out = append(out, g.Name)
	}
	return out, err
}

func memberNames(group string) namesFunc {
	return func(ctx context.Context, client *sdk.Client) (out []string, err error) {
		members, err := client.Members(ctx, group)
		for _, m := range members {
			out = append(out, m.ID)
		}
		return out, err
	}
}

func nodeNames(ctx context.Context, client *sdk.Client) (out []string, err error) {
	status, err := client.Status(ctx, "")
	for _, n := range status.Nodes {
		out = append(out, n.ID)
	}
	return out, err
}

func tokenNames(ctx context.Context, client *sdk.Client) (out []string, err error) {
	tokens, err := client.Tokens(ctx)
	for _, t := range tokens {
		out = append(out, t.Name)
	}
	return out, err
}
