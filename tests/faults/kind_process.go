//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"github.com/werbenhu/registry/tests/faults/cluster"
)

var processKinds = []Kind{
	{Name: "kill-leader", About: "kill -9 of the leader, restarted after 2 s", Inject: killLeader},
	{Name: "kill-follower", About: "kill -9 of a follower, restarted after 2 s", Inject: killFollower, NoLoss: true},
	{Name: "kill-all", About: "kill -9 of all nodes at once, restarted after 1 s", Inject: killAll},
	{Name: "stop-leader-1s", About: "SIGSTOP of the leader for 1 s", Inject: stopLeader(time.Second)},
	{Name: "stop-leader-5s", About: "SIGSTOP of the leader for 5 s", Inject: stopLeader(5 * time.Second)},
	{Name: "stop-leader-30s", About: "SIGSTOP of the leader for 30 s", Inject: stopLeader(30 * time.Second)},
	{Name: "stop-all-5s", About: "SIGSTOP of all nodes for 5 s", Inject: stopAll(5 * time.Second), NoLoss: true},
	{Name: "stop-all-30s", About: "SIGSTOP of all nodes for 30 s: no member that beats is lost", Inject: stopAll(30 * time.Second), NoLoss: true},
	{Name: "stop-all-one-leader", About: "SIGSTOP of all nodes for 3.5 s, longer than any lease and too short for an election: the leader goes on, and no member that beats is lost",
		Config: patient, Inject: stopAll(3500 * time.Millisecond), NoLoss: true},
	{Name: "restart-rolling", About: "SIGTERM and restart of each node in turn, under load", Inject: restartRolling},
}

func killLeader(ctx context.Context, r *Run) error {
	n, err := r.Leader(ctx)
	if err != nil {
		return err
	}
	return kill(ctx, r, 2*time.Second, n)
}

func killFollower(ctx context.Context, r *Run) error {
	n, err := r.Follower(ctx)
	if err != nil {
		return err
	}
	return kill(ctx, r, 2*time.Second, n)
}

func killAll(ctx context.Context, r *Run) error {
	return kill(ctx, r, time.Second, r.Cluster.Nodes...)
}

// kill kills nodes one right after the other, and starts them again.
func kill(ctx context.Context, r *Run, away time.Duration, nodes ...*cluster.Node) error {
	r.Fault(nodes, "kill -9 of %d nodes, %s first", len(nodes), nodes[0].ID)
	for _, n := range nodes {
		if err := n.Kill(); err != nil {
			return err
		}
	}
	if err := r.Hold(ctx, away); err != nil {
		return err
	}
	r.Heal("restart")
	for _, n := range nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

func stopLeader(d time.Duration) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error {
		n, err := r.Leader(ctx)
		if err != nil {
			return err
		}
		return stop(ctx, r, d, n)
	}
}

func stopAll(d time.Duration) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error { return stop(ctx, r, d, r.Cluster.Nodes...) }
}

// patient nodes wait longer for their leader than leases live.
func patient(_ context.Context, _ *Env, cfg *cluster.Config) error {
	cfg.Flags = append(cfg.Flags, "-election-timeout=4s")
	return nil
}

// stop pauses nodes and resumes them, whatever happens meanwhile.
func stop(ctx context.Context, r *Run, d time.Duration, nodes ...*cluster.Node) error {
	r.Fault(nodes, "SIGSTOP of %d nodes, %s first", len(nodes), nodes[0].ID)
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.Pause())
	}
	errs = append(errs, r.Hold(ctx, d))
	r.Heal("SIGCONT")
	for _, n := range nodes {
		errs = append(errs, n.Resume())
	}
	return errors.Join(errs...)
}

// restartRolling waits for health before the next node goes, as an operator does.
func restartRolling(ctx context.Context, r *Run) error {
	for _, n := range r.Cluster.Nodes {
		r.Fault([]*cluster.Node{n}, "SIGTERM of %s", n.ID)
		limit, cancel := context.WithTimeout(ctx, 15*time.Second)
		err := n.Stop(limit)
		cancel()
		if err != nil {
			return err
		}
		r.Heal("restart of %s", n.ID)
		if err := n.Start(); err != nil {
			return err
		}
		if err := r.Cluster.AwaitHealth(ctx); err != nil {
			return err
		}
	}
	return nil
}
