package main

import (
	"context"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"

	"github.com/werbenhu/registry/sdk"
)

// link is a client, and what became of its connections.
type link struct {
	*sdk.Client
	reach  *reach
	traced func() // sends the spans
}

// Close ends the client, and the span of the command.
func (l *link) Close() error {
	err := l.Client.Close()
	l.traced()
	return err
}

// dialLink connects to the nodes that the client flags name. Nothing is sent yet.
func dialLink(c *cli.Context, opts ...sdk.Option) (*link, error) {
	addrs := list(c, flagRegistries)
	if len(addrs) == 0 {
		return nil, usageErrorf("-%s names no address", flagRegistries).withHint("for instance -registries 127.0.0.1:9800")
	}
	if c.Duration(flagTimeout) <= 0 {
		return nil, usageErrorf("-%s is %v, want more than 0", flagTimeout, c.Duration(flagTimeout))
	}
	if d := c.Duration(flagMaxStaleness); c.IsSet(flagMaxStaleness) && d <= 0 {
		return nil, usageErrorf("-%s is %v, want more than 0", flagMaxStaleness, d)
	}
	reach := newReach(addrs)
	reach.hintUnless(c, flagRegistries)
	if err := reach.secure(c.String); err != nil {
		return nil, err
	}
	token, err := withToken(c.String(flagTokenFile))
	if err != nil {
		return nil, err
	}
	traces, traced, err := traceCommand(c)
	if err != nil {
		return nil, err
	}
	opts = append(opts, traces...)
	client, err := sdk.Dial(strings.Join(addrs, ","), append(opts, sdk.WithCallTimeout(c.Duration(flagTimeout)), sdk.WithDialer(reach.dial),
		sdk.WithDialOptions(grpc.WithTransportCredentials(reach.credentials())),
		sdk.WithCluster(c.String(flagCluster)), token)...)
	if err != nil {
		traced()
		return nil, err
	}
	return &link{client, reach, traced}, nil
}

// withClient runs fn with a client and the time that -timeout allows.
func withClient(c *cli.Context, fn func(context.Context, *sdk.Client) error) error {
	l, err := dialLink(c)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.ask(c, func(ctx context.Context) error { return fn(ctx, l.Client) })
}

// ask runs fn with the time that -timeout allows, or less when every address
// refuses. What is being tried is said after a second.
func (l *link) ask(c *cli.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(flagTimeout))
	defer cancel()
	defer l.reach.sayAfter(time.Second, c.App.ErrWriter, c.Duration(flagTimeout))()
	ctx, stop := l.reach.untilRefused(ctx, time.Time{})
	defer stop()
	return l.diagnosed(c, shortened(ctx, fn(ctx)))
}

// askLong is ask for what may last longer than -timeout: the client gives up when nothing
// moves for that time.
func (l *link) askLong(c *cli.Context, fn func(context.Context) error) error {
	ctx, stop := l.reach.untilRefused(c.Context, time.Time{})
	defer stop()
	return l.diagnosed(c, shortened(ctx, fn(ctx)))
}

// readOptions are what the read flags ask for, with a receipt.
func readOptions(c *cli.Context, receipt *sdk.Receipt) []sdk.ReadOption {
	opts := []sdk.ReadOption{sdk.WithReceipt(receipt)}
	if c.Bool("linearizable") {
		opts = append(opts, sdk.Linearizable())
	}
	if i := c.Uint64(flagAtLeast); i > 0 {
		opts = append(opts, sdk.AtLeast(i))
	}
	if d := c.Duration(flagMaxStaleness); d > 0 {
		opts = append(opts, sdk.MaxStaleness(d))
	}
	return opts
}
