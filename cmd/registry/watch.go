package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

const (
	flagPrefix       = "prefix"
	flagFingerprints = "fingerprints"
)

// watchJSON is one event of a watch.
type watchJSON struct {
	Group        string       `json:"group"`
	Reset        bool         `json:"reset"`
	Rebuilt      bool         `json:"rebuilt"`
	Unknown      bool         `json:"unknown"`
	From         uint64       `json:"from"`
	Revision     uint64       `json:"revision"`
	Index        uint64       `json:"index"`
	Fingerprint  string       `json:"fingerprint"` // empty for an unknown group
	VirtualNodes int          `json:"virtual_nodes"`
	Bound        bound        `json:"bound"`
	Put          []memberJSON `json:"put"`
	Removed      []string     `json:"removed"`
	Error        string       `json:"error"`     // why the watch gets nothing
	Recovered    bool         `json:"recovered"` // it gets something again
}

func toWatchJSON(ev sdk.GroupEvent) watchJSON {
	out := watchJSON{
		Group: ev.Group, Reset: ev.Reset, Rebuilt: ev.Rebuilt, Unknown: ev.Unknown,
		From: ev.From, Revision: ev.Revision, Index: ev.Index, Fingerprint: fingerprintText(ev),
		VirtualNodes: ev.VirtualNodes, Bound: bound(ev.Bound),
		Put: toMembersJSON(ev.Put), Removed: append([]string{}, ev.Removed...), Recovered: ev.Recovered,
	}
	if ev.Err != nil {
		out.Error = ev.Err.Error()
	}
	return out
}

// fingerprintText is empty for an event without a state of the group: none is not
// fingerprint 0.
func fingerprintText(ev sdk.GroupEvent) string {
	if ev.Unknown || ev.Revision == 0 {
		return ""
	}
	return hex64(ev.Fingerprint).String()
}

func watchCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "watch",
		Usage:     "follow a group's members and print what changes",
		ArgsUsage: "GROUP | -prefix [PREFIX]",
		Category:  categoryService,
		Description: "Prints the group as it is, then every change as a node applies it, until it is\n" +
			"stopped by SIGINT or SIGTERM. It goes on through the loss of nodes; -timeout is\n" +
			"only for the first state, and without a node that can be reached it ends before.\n" +
			"A line has the group's revision, its name, and\n\n" +
			"   put        a member that is new or changed\n" +
			"   removed    the id of one that is gone\n" +
			"   set        the ring's new parameters\n" +
			"   reset      forget what was known: all members follow\n" +
			"   unknown    the group does not exist; it may come to exist later\n" +
			"   failing    nothing has come for 5 s, and why; the watch goes on trying, or\n" +
			"              ends if the nodes are of another cluster now\n" +
			"   recovered  the watch gets something again\n\n" +
			"Where reset or unknown is followed by rebuilt, the cluster lost its log. Changes\n" +
			"that come faster than they are printed become one event. With -prefix each event\n" +
			"is of one group. With -json each event is one line.",
		Flags: clientFlags(
			&cli.IntFlag{Name: "n", Usage: "end after so many events, of which the first is the group as it is", DefaultText: "no end"},
			&cli.BoolFlag{Name: flagPrefix, Usage: "follow all groups whose names start with the argument; without one, all groups"},
			&cli.BoolFlag{Name: flagFingerprints, Usage: "show the fingerprint of the group's ring after the revision"},
			jsonFlag(),
		),
		Action: func(c *cli.Context) error { return watch(e, c) },
	}
}

func watch(e *env, c *cli.Context) error {
	name, err := watchArg(c)
	if err != nil {
		return err
	}
	if c.IsSet("n") && c.Int("n") < 1 {
		return usageErrorf("-n is %d, want at least 1", c.Int("n"))
	}
	client, err := dialLink(c)
	if err != nil {
		return err
	}
	defer client.Close()
	w, err := openWatch(c, client.Client, name)
	if err != nil {
		return err
	}
	defer w.Close()

	first, cancel := context.WithTimeout(c.Context, c.Duration(flagTimeout))
	defer cancel()
	var exists bool
	err = client.ask(c, func(ctx context.Context) (err error) {
		exists, err = askFirst(ctx, c, client.Client, name)
		return err
	})
	if err != nil {
		return err
	}
	if !exists { // there is no first event before there is a group
		fmt.Fprintf(e.stderr, "no group starts with %q yet\n", name)
		first = c.Context
	}
	return follow(c, first, w, newEventPrinter(e, c))
}

// watchArg is the name of a group or, with -prefix, the start of names.
func watchArg(c *cli.Context) (string, error) {
	if c.Bool(flagPrefix) && c.Args().Len() == 0 {
		return "", nil
	}
	name := "GROUP"
	if c.Bool(flagPrefix) {
		name = "PREFIX"
	}
	args, err := positional(c, name)
	if err != nil {
		return "", err
	}
	return args[0], nil
}

func openWatch(c *cli.Context, client *sdk.Client, name string) (*sdk.Watch[sdk.GroupEvent], error) {
	if c.Bool(flagPrefix) {
		return client.WatchPrefix(c.Context, name)
	}
	return client.Watch(c.Context, name)
}

// askFirst asks for what is watched by a call, which says why no node answers: a
// watch only goes on trying. It tells whether the watch has a first event.
func askFirst(ctx context.Context, c *cli.Context, client *sdk.Client, name string) (bool, error) {
	if !c.Bool(flagPrefix) {
		_, _, err := client.Group(ctx, name)
		if errors.Is(err, sdk.ErrUnknownGroup) {
			err = nil // which is an event
		}
		return true, err
	}
	groups, err := client.GroupsWithPrefix(ctx, name)
	return len(groups) > 0, err
}

// follow prints events until -n are printed or the command is stopped. The wait
// for the first one ends with the context first. Events that tell of the watch
// itself do not count.
func follow(c *cli.Context, first context.Context, w *sdk.Watch[sdk.GroupEvent], show func(sdk.GroupEvent) error) error {
	ctx, n := first, 0
	for {
		ev, err := w.Next(ctx)
		switch {
		case err == nil:
		case ctx == c.Context && ctx.Err() != nil:
			return nil // stopped
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("watch: nodes answer, but none gave a first state within %v: %w", c.Duration(flagTimeout), err)
		default:
			return err
		}
		if errors.Is(ev.Err, sdk.ErrWrongCluster) { // which only another watch gets over
			_ = show(ev)
			return (&exitError{code: exitConflict, err: ev.Err}).withHint("if the cluster was formed anew, run the command again to watch the new one")
		}
		if ev.Err == nil && !ev.Recovered {
			ctx, n = c.Context, n+1
		}
		if err := show(ev); err != nil || n > 0 && n == c.Int("n") {
			return err
		}
	}
}

// newEventPrinter returns a function that prints an event at once.
func newEventPrinter(e *env, c *cli.Context) func(sdk.GroupEvent) error {
	if c.Bool(flagJSON) {
		return func(ev sdk.GroupEvent) error { return writeJSONLine(e.stdout, toWatchJSON(ev)) }
	}
	p := &eventPrinter{w: e.stdout, fingerprints: c.Bool(flagFingerprints), params: map[string]string{}}
	return p.print
}

// eventPrinter prints an event as one line for each change.
type eventPrinter struct {
	w            io.Writer
	fingerprints bool
	params       map[string]string // of the rings, as last shown, by group
}

func (p *eventPrinter) print(ev sdk.GroupEvent) error {
	t := newTable(p.w)
	line := p.lineOf(t, ev)
	params := fmt.Sprintf("virtual-nodes=%d bound=%v", ev.VirtualNodes, bound(ev.Bound))
	mark := ""
	if ev.Rebuilt {
		mark = " rebuilt"
	}
	switch {
	case ev.Err != nil:
		line("failing", ev.Err.Error())
		return t.flush()
	case ev.Recovered:
		line("recovered")
		return t.flush()
	case ev.Unknown:
		line("unknown" + mark)
		delete(p.params, ev.Group)
		return t.flush()
	case ev.Reset:
		line("reset"+mark, fmt.Sprintf("members=%d %s", len(ev.Put), params))
	case params != p.params[ev.Group], len(ev.Put)+len(ev.Removed) == 0:
		line("set", params)
	}
	p.params[ev.Group] = params
	for _, id := range ev.Removed {
		line("removed", id)
	}
	for _, m := range ev.Put {
		line("put", m.ID, m.Addr, fmt.Sprintf("weight=%d", m.Weight), stateText(m), "ttl="+m.TTL.String(), pairs(m.Meta))
	}
	return t.flush()
}

// lineOf returns a function that adds a line of the event to the table.
func (p *eventPrinter) lineOf(t *table, ev sdk.GroupEvent) func(cells ...string) {
	revision := ""
	if ev.Revision != 0 {
		revision = fmt.Sprint(ev.Revision)
	}
	head := []any{revision, ev.Group}
	if p.fingerprints {
		head = []any{revision, fingerprintText(ev), ev.Group}
	}
	return func(cells ...string) {
		row := slices.Clone(head)
		for _, cell := range cells {
			row = append(row, cell)
		}
		t.row(row...)
	}
}
