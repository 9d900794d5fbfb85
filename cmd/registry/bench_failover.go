package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// failoverPatience bounds the wait for the first write under a new leader.
const failoverPatience = 10 * time.Second

// failoverLoad times how long nothing can be written while leadership moves.
type failoverLoad struct {
	benchGroups
	c    *cli.Context
	link *link
	next int // number of the last registration
}

func newFailoverLoad(c *cli.Context) load {
	return &failoverLoad{benchGroups: newBenchGroups(c), c: c}
}

func (l *failoverLoad) prepare(ctx context.Context, _ []registrypb.RegistryClient) (err error) {
	if l.link, err = dialLink(l.c, sdk.WithRefreshInterval(-1)); err != nil {
		return err
	}
	_, err = l.link.GroupsWithPrefix(ctx, l.group(0)) // so that no call is timed with a connection
	return err
}

// caller is called once: leadership is at one place.
func (l *failoverLoad) caller(_ int, client registrypb.RegistryClient) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		if _, err := l.link.Transfer(ctx, ""); err != nil {
			return 0, err
		}
		ctx, cancel := context.WithTimeout(ctx, failoverPatience)
		defer cancel()
		l.next++
		retry := time.NewTicker(time.Millisecond)
		defer retry.Stop()
		for {
			_, err := client.Register(ctx, benchMember(l.group(l.next), l.next))
			if err == nil {
				return 1, nil
			}
			select {
			case <-retry.C:
			case <-ctx.Done():
				return 0, fmt.Errorf("no write was acknowledged within %v of a hand-over: %w", failoverPatience, err)
			}
		}
	}
}

func (l *failoverLoad) clean(ctx context.Context, clients []registrypb.RegistryClient) error {
	if l.link != nil {
		_ = l.link.Close() // it registered nothing
	}
	return l.benchGroups.clean(ctx, clients)
}
