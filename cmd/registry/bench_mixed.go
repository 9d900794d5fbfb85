package main

import (
	"context"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/registrypb"
)

type membersLoad struct{ benchMembers }

func newMembersLoad(c *cli.Context) load { return &membersLoad{newBenchMembers(c)} }

func (l *membersLoad) caller(i int, client registrypb.RegistryClient) func(context.Context) (int, error) {
	n := i
	return func(ctx context.Context) (int, error) {
		n++
		_, err := client.Members(ctx, &registrypb.MembersRequest{Group: l.group(n)})
		return 1, err
	}
}

// mixedLoad is what services and routers that ask for each request do together.
type mixedLoad struct {
	benchMembers
	next atomic.Int64 // of members
}

func newMixedLoad(c *cli.Context) load { return &mixedLoad{benchMembers: newBenchMembers(c)} }

func (l *mixedLoad) caller(i int, client registrypb.RegistryClient) func(context.Context) (int, error) {
	match := (&matchLoad{l.benchMembers, 1}).caller(i, client)
	heartbeat := (&heartbeatLoad{l.benchMembers, 1}).caller(i, client)
	n := i // callers are at different places of the mixture
	return func(ctx context.Context) (int, error) {
		switch n++; {
		case n%100 < 2:
			n := len(l.leases) + int(l.next.Add(1))
			_, err := client.Register(ctx, benchMember(l.group(n), n))
			return 1, err
		case n%100 < 10:
			return heartbeat(ctx)
		default:
			return match(ctx)
		}
	}
}
