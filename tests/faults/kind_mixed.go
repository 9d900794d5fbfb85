//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"github.com/werbenhu/registry/tests/faults/cluster"
)

var mixedKinds = []Kind{
	{Name: "kill-leader-in-partition", About: "the leader is killed while a follower is cut off; no majority until that is back", Needs: needsLinks, Inject: killInPartition},
	{Name: "transfer-and-stop", About: "leadership is handed over and the old leader is stopped at once, for 3 s", Inject: transferAndStop},
	{Name: "nemesis", About: "six faults drawn by lot, one after another or at the same time", Needs: needsLinks, Inject: nemesis},
}

func killInPartition(ctx context.Context, r *Run) error {
	leader, err := r.Leader(ctx)
	if err != nil {
		return err
	}
	followers := r.Cluster.Others(leader)
	cut := followers[r.Rand.IntN(len(followers))]
	r.Fault([]*cluster.Node{cut}, "%s is cut off", cut.ID)
	if err := errors.Join(r.link(cut, cluster.Link{Cut: true}, true, true), r.Hold(ctx, 1500*time.Millisecond)); err != nil {
		return err
	}
	r.Fault(r.Cluster.Nodes, "kill -9 of %s, the leader", leader.ID)
	if err := errors.Join(leader.Kill(), r.Hold(ctx, 2*time.Second)); err != nil {
		return err
	}
	r.Fault([]*cluster.Node{leader}, "%s is connected", cut.ID)
	r.Cluster.Network.Heal()
	if err := r.Hold(ctx, 3*time.Second); err != nil {
		return err
	}
	r.Heal("%s starts", leader.ID)
	return leader.Start()
}

func transferAndStop(ctx context.Context, r *Run) error {
	old, err := r.Leader(ctx)
	if err != nil {
		return err
	}
	others := r.Cluster.Others(old)
	to := others[r.Rand.IntN(len(others))]
	r.Fault([]*cluster.Node{old}, "transfer from %s to %s, then SIGSTOP", old.ID, to.ID)
	handed := make(chan error, 1)
	go func() { handed <- r.transfer(ctx, to) }()
	errs := []error{r.Hold(ctx, r.between(time.Millisecond, 60*time.Millisecond)), old.Pause(), r.Hold(ctx, 3*time.Second)}
	r.Heal("SIGCONT")
	errs = append(errs, old.Resume())
	<-handed // where leadership is in the end is not the question
	return errors.Join(errs...)
}

// nemesis does steps drawn by lot; at most one node is down or stopped at a time.
func nemesis(ctx context.Context, r *Run) error {
	steps := []func(context.Context, *Run) error{
		partition(true, 1500*time.Millisecond), partition(false, 1500*time.Millisecond),
		lossyWith(stopLeader(1200 * time.Millisecond)), stopLeader(2 * time.Second),
		killLeader, lossyWith(killFollower), oneWayShort, transferAndStop,
	}
	for range 6 {
		if err := steps[r.Rand.IntN(len(steps))](ctx, r); err != nil {
			return err
		}
		if err := r.Hold(ctx, r.between(0, 1500*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// lossyWith does a step while 5 % of all packets are lost.
func lossyWith(step func(context.Context, *Run) error) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error {
		err := r.everyLink(cluster.Link{Loss: 0.05})
		err = errors.Join(err, step(ctx, r))
		r.Cluster.Network.Heal()
		return err
	}
}

func oneWayShort(ctx context.Context, r *Run) error {
	n, err := r.Leader(ctx)
	if err != nil {
		return err
	}
	out := r.Rand.IntN(2) == 0
	r.Fault([]*cluster.Node{n}, "one direction at %s is cut; sending: %v", n.ID, out)
	err = errors.Join(r.link(n, cluster.Link{Cut: true}, out, !out), r.Hold(ctx, 1500*time.Millisecond))
	r.Heal("both directions")
	r.Cluster.Network.Heal()
	return err
}
