package main

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

// dial connects to the nodes that the client flags name. Nothing is sent yet.
func dial(c *cli.Context, opts ...sdk.Option) (*sdk.Client, error) {
	addrs := list(c, flagRegistries)
	if len(addrs) == 0 {
		return nil, usageErrorf("-%s names no address", flagRegistries).withHint("for instance -registries 127.0.0.1:9800")
	}
	if c.Duration(flagTimeout) <= 0 {
		return nil, usageErrorf("-%s is %v, want more than 0", flagTimeout, c.Duration(flagTimeout))
	}
	return sdk.Dial(strings.Join(addrs, ","), append(opts, sdk.WithCallTimeout(c.Duration(flagTimeout)))...)
}

// withClient runs fn with a client and the time that -timeout allows.
func withClient(c *cli.Context, fn func(context.Context, *sdk.Client) error) error {
	client, err := dial(c)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(flagTimeout))
	defer cancel()
	return fn(ctx, client)
}

// readOptions are what the read flags ask for, with a receipt.
func readOptions(c *cli.Context, receipt *sdk.Receipt) []sdk.ReadOption {
	opts := []sdk.ReadOption{sdk.WithReceipt(receipt)}
	if c.Bool("linearizable") {
		opts = append(opts, sdk.Linearizable())
	}
	if i := c.Uint64("at-least"); i > 0 {
		opts = append(opts, sdk.AtLeast(i))
	}
	if d := c.Duration("max-staleness"); d > 0 {
		opts = append(opts, sdk.MaxStaleness(d))
	}
	return opts
}
