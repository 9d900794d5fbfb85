package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

func registerCommand(e *env) *cli.Command {
	flags := clientFlags(
		&cli.StringFlag{Name: flagGroup, Usage: "the group that the service belongs to"},
		&cli.StringFlag{Name: flagID, Usage: "the service's id, unique in its group: keys follow the id, not the address"},
		&cli.StringFlag{Name: flagAddr, Usage: "host:port where the service is reached"},
		&cli.DurationFlag{Name: "ttl", Usage: "how long it stays registered without a heartbeat, 1s–24h", Value: 10 * time.Second},
		&cli.IntFlag{Name: flagWeight, Usage: "1–1000: a service of weight 2 owns twice the keys of one of weight 1", Value: 1},
		&cli.StringSliceFlag{Name: "meta", Usage: "metadata `KEY=VALUE`, repeatable"},
		&cli.BoolFlag{Name: "take-over", Usage: "take the id over from a live process at another address"},
	)
	return &cli.Command{
		Name:      "register",
		Usage:     "register a service and keep it registered until stopped",
		ArgsUsage: "[-- CMD ARGS…]",
		Category:  categoryService,
		Description: "Stays in the foreground, sends heartbeats, and deregisters on SIGINT or SIGTERM.\n" +
			"With a command it runs it, passes signals on to it, deregisters when it ends and\n" +
			"exits with its status. If another process takes the id, the command gets SIGTERM\n" +
			"and the exit code is 4.",
		Flags:  append(flags, logFlags("warn")...),
		Action: func(c *cli.Context) error { return register(e, c) },
	}
}

func register(e *env, c *cli.Context) error {
	if err := require(c, flagGroup, flagID, flagAddr); err != nil {
		return err
	}
	service, err := serviceOf(c)
	if err != nil {
		return err
	}
	command, err := newChild(e, c.Args().Slice())
	if err != nil {
		return err
	}
	logger, err := newLogger(c, e.stderr)
	if err != nil {
		return err
	}
	client, err := dial(c, sdk.WithLogger(logger))
	if err != nil {
		return err
	}
	defer client.Close()
	return stayRegistered(e, c, client, service, command)
}

// stayRegistered registers, waits for the end of the context, of the command or
// of the seat, and deregisters.
func stayRegistered(e *env, c *cli.Context, client *sdk.Client, s sdk.Service, command *child) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(flagTimeout))
	defer cancel()
	reg, err := client.Register(ctx, s)
	if errors.Is(err, sdk.ErrConflict) {
		held := &exitError{code: exitConflict, err: err}
		return held.withHint("-take-over takes the id over from it")
	}
	if err != nil {
		return err
	}
	name := s.Group + "/" + s.ID
	fmt.Fprintf(e.stderr, "%s registered at %s\n", name, s.Addr)
	if command != nil {
		err = command.run(c.Context, reg.Done())
	} else {
		select {
		case <-c.Context.Done():
		case <-reg.Done():
		}
	}
	if lost := seatLost(reg); lost != nil {
		return &exitError{code: exitConflict, err: fmt.Errorf("%s lost its seat: %w", name, lost)}
	}
	if cerr := reg.Close(); cerr != nil {
		fmt.Fprintf(e.stderr, "registry: %s not deregistered, it goes when its TTL is over: %v\n", name, cerr)
		if err == nil {
			err = &exitError{code: exitCode(cerr)}
		}
		return err
	}
	fmt.Fprintf(e.stderr, "%s deregistered\n", name)
	return err
}

// seatLost returns why the registration ended by itself, if it did.
func seatLost(reg *sdk.Registration) error {
	select {
	case <-reg.Done():
		return reg.Err()
	default:
		return nil
	}
}

func serviceOf(c *cli.Context) (sdk.Service, error) {
	meta, err := parseMeta(c.StringSlice("meta"))
	if err != nil {
		return sdk.Service{}, err
	}
	if w := c.Int(flagWeight); w < 1 { // 0 would mean the default to the SDK
		return sdk.Service{}, usageErrorf("-weight is %d, want 1 to 1000", w)
	}
	if ttl := c.Duration("ttl"); ttl <= 0 {
		return sdk.Service{}, usageErrorf("-ttl is %v, want 1s to 24h", ttl)
	}
	return sdk.Service{
		Group: c.String(flagGroup), ID: c.String(flagID), Addr: c.String(flagAddr),
		Weight: c.Int(flagWeight), Meta: meta, TTL: c.Duration("ttl"), TakeOver: c.Bool("take-over"),
	}, nil
}

func parseMeta(values []string) (map[string]string, error) {
	meta := make(map[string]string, len(values))
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok || key == "" {
			return nil, usageErrorf("-meta is %q, want KEY=VALUE", v)
		}
		if _, twice := meta[key]; twice {
			return nil, usageErrorf("-meta gives %q twice", key)
		}
		meta[key] = value
	}
	return meta, nil
}
