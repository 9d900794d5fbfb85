//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/cluster"
)

var memberKinds = []Kind{
	{Name: "moved-node", About: "a node is killed and comes back with its data at another address", Inject: movedNode},
	{Name: "wiped-node", About: "a node loses its data: it is refused under its id, and comes back by remove and join", Inject: wipedNode},
	{Name: "transfers", About: "leadership is handed over again and again, under load", Inject: transfers, NoLoss: true},
}

func movedNode(ctx context.Context, r *Run) error {
	n := r.Cluster.Nodes[r.Rand.IntN(len(r.Cluster.Nodes))]
	r.Fault([]*cluster.Node{n}, "kill -9 of %s", n.ID)
	if err := errors.Join(n.Kill(), r.Hold(ctx, time.Second), n.Move()); err != nil {
		return err
	}
	r.Heal("%s starts at %s", n.ID, n.Bind())
	if err := n.Start(); err != nil {
		return err
	}
	// The cluster must learn of the new address.
	return within(ctx, mendLimit, func() error {
		for _, other := range r.Cluster.Others(n) {
			st, err := other.Status(ctx, "")
			if err != nil {
				return err
			}
			for _, s := range st.Nodes {
				if s.Id == n.ID && (s.Bind != n.Bind() || s.Addr != n.Addr()) {
					return fmt.Errorf("%s knows %s at %s and %s", other.ID, n.ID, s.Bind, s.Addr)
				}
			}
		}
		return nil
	})
}

func within(ctx context.Context, d time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("not within %v", d))
	defer cancel()
	return cluster.Await(ctx, f)
}

// wipedNode: a node that lost its data forgot its votes. The documented way
// back is remove, and join under another id, or under the same as a new node.
func wipedNode(ctx context.Context, r *Run) error {
	n, err := r.Follower(ctx)
	if err != nil {
		return err
	}
	others := r.Cluster.Others(n)
	r.Fault([]*cluster.Node{n}, "%s loses its data", n.ID)
	registries := "-registries=" + others[0].Bind() + "," + others[1].Bind()
	if err := errors.Join(n.Kill(), n.Wipe(), n.Start(registries, "-join-timeout=10s")); err != nil {
		return err
	}
	err = within(ctx, 15*time.Second, func() error {
		if n.Running() {
			return fmt.Errorf("%s was wiped and runs on under its id", n.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if code := n.ExitCode(); code != 4 {
		return fmt.Errorf("%s was wiped and ended with exit code %d, want 4: refused by the cluster", n.ID, code)
	}
	if log, err := os.ReadFile(n.Log); err != nil || !strings.Contains(string(log), "cluster remove "+n.ID) {
		return fmt.Errorf("%s was wiped and does not say what to do: %v", n.ID, err)
	}
	if err := r.remove(ctx, n); err != nil {
		return err
	}
	r.Heal("%s was removed and joins", n.ID)
	return errors.Join(n.Wipe(), n.Start(registries))
}

// remove removes a node from the cluster, by another one's word.
func (r *Run) remove(ctx context.Context, n *cluster.Node) error {
	err := within(ctx, mendLimit, func() error {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := r.Cluster.Others(n)[0].Cluster().Remove(call, &registrypb.RemoveRequest{Id: n.ID})
		return err
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", n.ID, err)
	}
	return nil
}

// transfers hand leadership over to nodes drawn by lot.
func transfers(ctx context.Context, r *Run) error {
	for range 6 {
		to := r.Cluster.Nodes[r.Rand.IntN(len(r.Cluster.Nodes))]
		r.Fault(nil, "transfer to %s", to.ID)
		if err := r.transfer(ctx, to); err != nil {
			return err
		}
		if err := r.Hold(ctx, r.between(200*time.Millisecond, 800*time.Millisecond)); err != nil {
			return err
		}
	}
	r.Heal("no more transfers")
	return nil
}

// transfer hands leadership over, and tries again where nothing was done.
func (r *Run) transfer(ctx context.Context, to *cluster.Node) error {
	return within(ctx, 20*time.Second, func() error {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := to.Cluster().Transfer(call, &registrypb.TransferRequest{Id: to.ID})
		return err
	})
}
