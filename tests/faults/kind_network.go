//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"github.com/werbenhu/registry/tests/faults/cluster"
)

var networkKinds = []Kind{
	{Name: "partition-leader", About: "the leader is cut off from the other nodes for 4 s, not from clients", Needs: needsLinks, Inject: partition(true, 4*time.Second)},
	{Name: "partition-follower", About: "a follower is cut off from the other nodes for 4 s", Needs: needsLinks, Inject: partition(false, 4*time.Second)},
	{Name: "leader-cannot-send", About: "the leader's packets to the other nodes are lost for 5 s, theirs arrive", Needs: needsLinks, Inject: oneWay(true)},
	{Name: "leader-cannot-receive", About: "the other nodes' packets to the leader are lost for 5 s, its own arrive", Needs: needsLinks, Inject: oneWay(false)},
	{Name: "loss-20", About: "20 % of all packets are lost for 5 s", Needs: needsLinks, Inject: impair(cluster.Link{Loss: 0.2})},
	{Name: "delay-100", About: "all packets take 100 ms ± 50 ms for 5 s", Needs: needsLinks, Inject: impair(slow)},
	{Name: "loss-and-delay", About: "20 % of all packets are lost and the others take 100 ms ± 50 ms, for 5 s", Needs: needsLinks,
		Inject: impair(cluster.Link{Loss: 0.2, Delay: slow.Delay, Jitter: slow.Jitter})},
}

var slow = cluster.Link{Delay: 100 * time.Millisecond, Jitter: 50 * time.Millisecond}

// partition cuts a node off from the others, in both directions.
func partition(leader bool, d time.Duration) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error {
		n, err := r.either(ctx, leader)
		if err != nil {
			return err
		}
		r.Fault([]*cluster.Node{n}, "%s is cut off", n.ID)
		err = errors.Join(r.link(n, cluster.Link{Cut: true}, true, true), r.Hold(ctx, d))
		r.Heal("%s is connected", n.ID)
		r.Cluster.Network.Heal()
		return err
	}
}

// either returns the leader or some follower.
func (r *Run) either(ctx context.Context, leader bool) (*cluster.Node, error) {
	if leader {
		return r.Leader(ctx)
	}
	return r.Follower(ctx)
}

// oneWay cuts one direction between the leader and the other nodes. A leader
// that cannot send is soon deposed; one that hears no answers has to step down
// by itself before the others can elect.
func oneWay(sending bool) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error {
		n, err := r.Leader(ctx)
		if err != nil {
			return err
		}
		r.Fault([]*cluster.Node{n}, "one direction at %s is cut; sending: %v", n.ID, sending)
		err = errors.Join(r.link(n, cluster.Link{Cut: true}, sending, !sending), r.Hold(ctx, 5*time.Second))
		r.Heal("both directions")
		r.Cluster.Network.Heal()
		return err
	}
}

// link changes what happens between a node and the other nodes.
func (r *Run) link(n *cluster.Node, l cluster.Link, out, in bool) error {
	var errs []error
	for _, other := range r.Cluster.Others(n) {
		if out {
			errs = append(errs, r.Cluster.Network.SetLink(n.Endpoint(), other.Endpoint(), l))
		}
		if in {
			errs = append(errs, r.Cluster.Network.SetLink(other.Endpoint(), n.Endpoint(), l))
		}
	}
	return errors.Join(errs...)
}

// impair changes every link, those of clients too.
func impair(l cluster.Link) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error {
		r.Fault(nil, "every link: loss %.0f %%, delay %v ± %v", l.Loss*100, l.Delay, l.Jitter)
		errs := []error{r.everyLink(l), r.Hold(ctx, 5*time.Second)}
		r.Heal("good links")
		r.Cluster.Network.Heal()
		return errors.Join(errs...)
	}
}

func (r *Run) everyLink(l cluster.Link) error {
	ends := []*cluster.Endpoint{r.Cluster.Clients}
	for _, n := range r.Cluster.Nodes {
		ends = append(ends, n.Endpoint())
	}
	var errs []error
	for _, a := range ends {
		for _, b := range ends {
			if a != b {
				errs = append(errs, r.Cluster.Network.SetLink(a, b, l))
			}
		}
	}
	return errors.Join(errs...)
}
