//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/tests/faults/cluster"
)

// Every run has new nodes: the tail that is not committed has to be the end of the log.
var staleKinds = []Kind{
	{Name: "cold-start-alone", About: "a leader is killed with entries that nobody else has, then all others; started alone with -serve-stale-on-start it answers, from nothing but what was committed, and says that it does not know how old that is",
		Config: staleOnStart, Inject: coldStartAlone, Fresh: true},
}

func staleOnStart(_ context.Context, _ *Env, cfg *cluster.Config) error {
	cfg.Flags = append(cfg.Flags, "-serve-stale-on-start")
	return nil
}

const (
	// notCommitted is a member that only the killed leader ever has.
	notCommitted = "not-committed"
	staleGroup   = "cold-start"
)

func coldStartAlone(ctx context.Context, r *Run) error {
	n, err := r.Leader(ctx)
	if err != nil {
		return err
	}
	others := r.Cluster.Others(n)
	before, err := n.Registry().Register(ctx, staleMember("committed"))
	if err != nil {
		return err
	}
	r.Fault(r.Cluster.Nodes, "kill -9 of the followers, a write at the leader %s, and kill -9 of it", n.ID)
	for _, o := range others {
		if err := o.Kill(); err != nil {
			return err
		}
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	_, err = n.Registry().Register(short, staleMember(notCommitted))
	cancel()
	if err == nil {
		return fmt.Errorf("%s acknowledged a write alone", n.ID)
	}
	if err := n.Kill(); err != nil {
		return err
	}
	r.Fault([]*cluster.Node{n}, "the others start and go on without it")
	for _, o := range others {
		if err := o.Start(); err != nil {
			return err
		}
	}
	err = within(ctx, mendLimit, func() error {
		_, err := others[0].Registry().Register(ctx, staleMember("instead"))
		return err
	})
	if err := errors.Join(err, r.Hold(ctx, time.Second)); err != nil {
		return err
	}
	r.Fault(r.Cluster.Nodes, "kill -9 of the others; %s starts alone", n.ID)
	for _, o := range others {
		if err := o.Kill(); err != nil {
			return err
		}
	}
	if err := n.Start(); err != nil {
		return err
	}
	if err := r.answersStale(ctx, n, before.Index); err != nil {
		return err
	}
	r.Heal("the others start")
	for _, o := range others {
		if err := o.Start(); err != nil {
			return err
		}
	}
	return within(ctx, mendLimit, func() error {
		resp, err := n.Registry().Members(ctx, &registrypb.MembersRequest{Group: staleGroup, Read: &registrypb.ReadOptions{Linearizable: true}})
		if err == nil && (!hasMember(resp, "instead") || hasMember(resp, notCommitted) || resp.Receipt.Lag.AsDuration() > time.Minute) {
			err = fmt.Errorf("%s has %v", n.ID, resp)
		}
		return err
	})
}

func staleMember(id string) *registrypb.RegisterRequest {
	return &registrypb.RegisterRequest{Group: staleGroup, Id: id, Addr: "10.9.0.1:80", Ttl: durationpb.New(time.Hour)}
}

func hasMember(resp *registrypb.MembersResponse, id string) bool {
	for _, m := range resp.GetMembers() {
		if m.Id == id {
			return true
		}
	}
	return false
}

// answersStale waits until the node answers, and reads from it for a while. It had
// applied the index before it was killed.
func (r *Run) answersStale(ctx context.Context, n *cluster.Node, index uint64) error {
	members := func(read *registrypb.ReadOptions) (*registrypb.MembersResponse, error) {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return n.Registry().Members(short, &registrypb.MembersRequest{Group: staleGroup, Read: read})
	}
	err := within(ctx, mendLimit, func() error {
		_, err := members(nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s does not answer alone: %w", n.ID, err)
	}
	for range 20 {
		resp, err := members(nil)
		switch {
		case err != nil:
			return err
		case resp.Receipt.Index < index || !hasMember(resp, "committed"):
			return fmt.Errorf("%s lost an entry that it had applied: %v", n.ID, resp)
		case hasMember(resp, notCommitted):
			return fmt.Errorf("%s shows what was never committed: %v", n.ID, resp)
		case resp.Receipt.Lag.AsDuration() != sdk.UnknownLag:
			return fmt.Errorf("%s claims to know how old its answer is: %v", n.ID, resp.Receipt)
		}
		if err := errors.Join(r.Load.ReadLocal(ctx, n.ID), r.Hold(ctx, 50*time.Millisecond)); err != nil {
			return err
		}
	}
	if resp, err := members(&registrypb.ReadOptions{MaxStaleness: durationpb.New(time.Hour)}); err == nil {
		return fmt.Errorf("%s answers with a limit: %v", n.ID, resp.Receipt)
	}
	if resp, err := members(&registrypb.ReadOptions{Linearizable: true}); err == nil {
		return fmt.Errorf("%s answers a linearizable read alone: %v", n.ID, resp.Receipt)
	}
	return nil
}
