//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/cluster"
)

var changeKinds = []Kind{
	{Name: "member-changes", About: "a node joins and another is removed while a third is down, and the leader is killed: the majority that runs has a leader", Inject: memberChanges,
		Expect: regexp.MustCompile("was removed from the cluster")}, // it may find that out before it is killed
}

// electLimit is how long a majority that runs may take to have a leader.
const electLimit = 15 * time.Second

// memberChanges has the node that was down be needed for the majority, with a
// configuration from before both changes. In the end the cluster has its first nodes.
func memberChanges(ctx context.Context, r *Run) error {
	first := slices.Clone(r.Cluster.Nodes)
	r.Fault(first, "members change while nodes are down")
	leader, err := r.Leader(ctx)
	if err != nil {
		return err
	}
	others := r.Cluster.Others(leader)
	r.Rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	down, gone := others[0], others[1]
	if err := down.Kill(); err != nil {
		return err
	}
	joined, err := r.joinNew(ctx, leader)
	if err != nil {
		return err
	}
	if err := r.removeNode(ctx, leader, gone); err != nil {
		return err
	}
	if err := gone.Kill(); err != nil {
		return err
	}
	r.hide(gone)
	if err := r.refused(ctx, leader, joined); err != nil {
		return err
	}
	if err := errors.Join(r.Hold(ctx, r.between(0, 500*time.Millisecond)), leader.Kill(), down.Start()); err != nil {
		return err
	}
	if err := within(ctx, electLimit, func() error { _, err := r.Leader(ctx); return err }); err != nil {
		return fmt.Errorf("%s and %s run, two of three voters: %w", down.ID, joined.ID, err)
	}
	return r.restore(ctx, first, leader, joined, gone)
}

// hide takes a node out of those that are looked at.
func (r *Run) hide(n *cluster.Node) { r.Cluster.Nodes = r.Cluster.Others(n) }

// joinNew starts a further node and waits until it is a voter.
func (r *Run) joinNew(ctx context.Context, by *cluster.Node) (*cluster.Node, error) {
	n, err := r.Cluster.AddNode(fmt.Sprintf("x%d", r.Rand.IntN(1e6)))
	if err != nil {
		return nil, err
	}
	if err := n.Start("-registries=" + by.Bind()); err != nil {
		return nil, err
	}
	return n, r.awaitVoter(ctx, by, n)
}

func (r *Run) awaitVoter(ctx context.Context, by, n *cluster.Node) error {
	return within(ctx, mendLimit, func() error {
		st, err := by.Status(ctx, "")
		if err != nil {
			return err
		}
		for _, s := range st.Nodes {
			if s.Id == n.ID && s.Voter && s.Ready {
				return nil
			}
		}
		return fmt.Errorf("%s is no voter yet", n.ID)
	})
}

func (r *Run) removeNode(ctx context.Context, by, n *cluster.Node) error {
	return within(ctx, mendLimit, func() error {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := by.Cluster().Remove(call, &registrypb.RemoveRequest{Id: n.ID})
		return err
	})
}

// refused: with one of three down, no second one can be removed.
func (r *Run) refused(ctx context.Context, by, n *cluster.Node) error {
	call, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := by.Cluster().Remove(call, &registrypb.RemoveRequest{Id: n.ID})
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		return fmt.Errorf("remove %s, one of two voters of three that run: %v, want a refusal that names who does not answer", n.ID, err)
	}
	return nil
}

// restore brings the cluster back to its first nodes.
func (r *Run) restore(ctx context.Context, first []*cluster.Node, killed, joined, gone *cluster.Node) error {
	if err := killed.Start(); err != nil {
		return err
	}
	if err := errors.Join(gone.Wipe(), gone.Start("-registries="+killed.Bind())); err != nil {
		return err
	}
	if err := r.awaitVoter(ctx, killed, gone); err != nil {
		return err
	}
	if err := r.removeNode(ctx, killed, joined); err != nil {
		return err
	}
	if err := errors.Join(joined.Kill(), r.Cluster.Forget(joined)); err != nil {
		return err
	}
	r.Cluster.Nodes = first
	r.Heal("the first nodes are back")
	return nil
}
