package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

const flagOnce = "once"

// How often the live view is drawn at most, and at least: it has ages.
const (
	minRedraw = 100 * time.Millisecond
	maxRedraw = time.Second
)

// topStatusInterval is how often the nodes are asked how far they are.
const topStatusInterval = 2 * time.Second

func topCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "top",
		Usage:    "watch the cluster and its groups on the screen",
		Category: categoryCluster,
		Description: "Shows the nodes and the groups, those that need a look first: without an active\n" +
			"member, with draining or held ones. Groups and the leader change on the screen as a\n" +
			"node applies the change. q or Ctrl-C ends it. Without a terminal, or with -once, it\n" +
			"prints what the screen would show, and ends. It keeps the members of what it shows\n" +
			"in memory: on a large cluster give a -prefix.",
		Flags: clientFlags(
			&cli.StringFlag{Name: flagPrefix, Usage: "only the groups whose names begin with it"},
			&cli.BoolFlag{Name: flagOnce, Usage: "print it once"},
		),
		Action: func(c *cli.Context) error { return top(e, c) },
	}
}

func top(e *env, c *cli.Context) error {
	if _, err := positional(c); err != nil {
		return err
	}
	l, err := dialLink(c)
	if err != nil {
		return err
	}
	defer l.Close()
	v, known, err := firstView(c, l)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	f, err := startFeeds(ctx, l, v.prefix)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.untilComplete(c, v, known); err != nil {
		return err
	}
	if c.Bool(flagOnce) || !isTerminal(e.stdout) || !isTerminal(e.stdin) || os.Getenv("TERM") == "dumb" || !canReadKeys {
		_, err := io.WriteString(e.stdout, v.frame(frameSize{}, time.Now(), useColor(e.stdout)))
		return err
	}
	return live(ctx, e, f, v)
}

// firstView asks by calls, which say why no node answers, and returns what there is to
// be shown: the names of the groups.
func firstView(c *cli.Context, l *link) (v *topView, known map[string]bool, err error) {
	v, known = &topView{prefix: c.String(flagPrefix), groups: map[string]*topGroup{}}, map[string]bool{}
	err = l.ask(c, func(ctx context.Context) error {
		groups, err := l.GroupsWithPrefix(ctx, v.prefix)
		if err != nil {
			return err
		}
		for _, g := range groups {
			known[g.Name] = true
		}
		v.status, err = l.Status(ctx, "")
		return err
	})
	return v, known, err
}

// topFeeds are where changes come from.
type topFeeds struct {
	groups *sdk.Watch[sdk.GroupEvent]
	nodes  *sdk.Watch[sdk.NodesEvent]
	events chan sdk.GroupEvent
	status chan topStatus
	failed chan error // why a watch has ended
}

// topStatus is the answer to a question for the status.
type topStatus struct {
	status sdk.Status
	err    error
}

// startFeeds starts goroutines that end with ctx.
func startFeeds(ctx context.Context, l *link, prefix string) (*topFeeds, error) {
	groups, err := l.WatchPrefix(ctx, prefix)
	if err != nil {
		return nil, err
	}
	nodes, err := l.WatchNodes(ctx)
	if err != nil {
		return nil, errors.Join(err, groups.Close())
	}
	f := &topFeeds{groups: groups, nodes: nodes, events: make(chan sdk.GroupEvent), status: make(chan topStatus), failed: make(chan error, 2)}
	go feed(ctx, f.failed, groups, func(ev sdk.GroupEvent) {
		select {
		case f.events <- ev:
		case <-ctx.Done():
		}
	})
	changed := make(chan struct{}, 1)
	go feed(ctx, f.failed, nodes, func(sdk.NodesEvent) {
		select {
		case changed <- struct{}{}:
		default: // it is noted
		}
	})
	go f.askStatus(ctx, l, changed)
	return f, nil
}

func feed[T any](ctx context.Context, failed chan<- error, w *sdk.Watch[T], take func(T)) {
	for ctx.Err() == nil {
		ev, err := w.Next(ctx)
		if err != nil {
			failed <- err
			return
		}
		take(ev)
	}
}

// askStatus asks for the status at an interval, and when the nodes or the leader changed.
func (f *topFeeds) askStatus(ctx context.Context, l *link, changed <-chan struct{}) {
	tick := time.NewTicker(topStatusInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
		asked, cancel := context.WithTimeout(ctx, 2*topStatusInterval)
		var s topStatus
		s.status, s.err = l.Status(asked, "")
		cancel()
		select {
		case f.status <- s:
		case <-ctx.Done():
			return
		}
	}
}

func (f *topFeeds) close() {
	_ = f.groups.Close() // they return nil
	_ = f.nodes.Close()
}

// untilComplete applies events until every known group was in one.
func (f *topFeeds) untilComplete(c *cli.Context, v *topView, known map[string]bool) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(flagTimeout))
	defer cancel()
	for len(known) > 0 {
		select {
		case ev := <-f.events:
			if ev.Err != nil {
				return ev.Err
			}
			v.apply(ev, time.Now())
			delete(known, ev.Group)
		case err := <-f.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("nodes answer, but gave no first state of all groups within %v: %w", c.Duration(flagTimeout), ctx.Err())
		}
	}
	return nil
}

// live draws until q is pressed or ctx ends.
func live(ctx context.Context, e *env, f *topFeeds, v *topView) error {
	s, err := openScreen(e.stdin.(*os.File), e.stdout.(*os.File))
	if err != nil {
		return err
	}
	defer s.close()
	soon, late := time.NewTicker(minRedraw), time.NewTicker(maxRedraw)
	defer soon.Stop()
	defer late.Stop()
	color, due := useColor(e.stdout), true
	for {
		select {
		case ev := <-f.events:
			v.apply(ev, time.Now())
			due = true
		case st := <-f.status:
			v.takeStatus(st)
			due = true
		case err := <-f.failed:
			if ctx.Err() == nil {
				return err
			}
			return nil
		case <-s.resized:
			due = true
		case <-late.C:
			due = true
		case <-soon.C:
			if due {
				due = false
				s.draw(v.frame(s.size(), time.Now(), color))
			}
		case key, open := <-s.keys:
			if !open || key == 'q' || key == 'Q' || key == 3 { // 3: Ctrl-C, where the terminal makes no signal of it
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}
