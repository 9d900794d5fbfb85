//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/werbenhu/registry/tests/faults/cluster"
	"github.com/werbenhu/registry/tests/faults/disk"
)

// Every run has new nodes: what was synced last may be what was written first.
var powerKinds = []Kind{
	{Name: "power-cut-leader", About: "power cuts of the leader, three times: its disk forgets what was not synced", Needs: needsDisks, Config: forgetful, Inject: powerCutLeader, Fresh: true},
	{Name: "power-cut-all", About: "power cuts of all nodes, six times: their disks forget what was not synced", Needs: needsDisks, Config: forgetful, Inject: powerCutAll, Fresh: true},
	{Name: "power-cut-joined", About: "a node is killed before it joins, and once it has joined its power is cut: what it wrote in its first life lasts too", Needs: needsDisks, Config: forgetful, Inject: powerCutJoined, Fresh: true},
}

func needsDisks(*Env) error { return disk.Usable() }

// forgetful disks, and snapshots all the time.
func forgetful(ctx context.Context, env *Env, cfg *cluster.Config) error {
	cfg.PowerCuts, cfg.Forgets = true, env.Forgets
	return manySnapshots(ctx, env, cfg)
}

func powerCutLeader(ctx context.Context, r *Run) error {
	for range 3 {
		n, err := r.Leader(ctx)
		if err == nil {
			err = errors.Join(cutPower(ctx, r, time.Second, n), r.awaitStarted(ctx))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// powerCutAll cuts the power of all nodes: first of a new cluster, then at any
// moment after the start, so that nodes may not even be ready, and at last where
// a log goes on in a further segment, if it is in segments.
func powerCutAll(ctx context.Context, r *Run) error {
	for range 5 {
		if err := cutPower(ctx, r, 300*time.Millisecond, r.Cluster.Nodes...); err != nil {
			return err
		}
		if err := r.Hold(ctx, r.between(0, 1500*time.Millisecond)); err != nil {
			return err
		}
	}
	if err := r.awaitStarted(ctx); err != nil {
		return err
	}
	stop := r.growLog(ctx, r.Cluster.Nodes[0])
	err := errors.Join(r.nextSegment(ctx), r.Hold(ctx, r.between(0, 20*time.Millisecond)))
	if err == nil {
		err = cutPower(ctx, r, 300*time.Millisecond, r.Cluster.Nodes...)
	}
	if stop(); err != nil {
		return err
	}
	return r.awaitStarted(ctx)
}

// powerCutJoined: a node finds what a killed process of its own had not synced, and
// must not take it for synced. What it acknowledges then is needed: of the others
// one was down, and the other one is.
func powerCutJoined(ctx context.Context, r *Run) error {
	n, err := r.Follower(ctx)
	if err != nil {
		return err
	}
	if err := r.killAndJoin(ctx, n); err != nil {
		return err
	}
	leader, err := r.Leader(ctx)
	if err == nil && leader == n {
		leader = r.Cluster.Others(n)[0]
		err = r.transfer(ctx, leader)
	}
	if err != nil {
		return err
	}
	behind := r.Cluster.Others(n, leader)[0]
	r.Fault([]*cluster.Node{behind}, "kill -9 of %s", behind.ID)
	if err := errors.Join(behind.Kill(), r.Hold(ctx, 2*time.Second)); err != nil {
		return err
	}
	r.Fault(r.Cluster.Nodes, "kill -9 of %s, which leads, and power cut of %s", leader.ID, n.ID)
	if err := leader.Kill(); err != nil {
		return err
	}
	kept, err := n.CutPower(r.Rand)
	if err := errors.Join(err, n.Start(), behind.Start(), r.Hold(ctx, 3*time.Second)); err != nil {
		return err
	}
	r.Heal("%s starts; %s", leader.ID, kept)
	return errors.Join(leader.Start(), r.awaitStarted(ctx))
}

// killAndJoin replaces a node by one that is killed before it joins.
func (r *Run) killAndJoin(ctx context.Context, n *cluster.Node) error {
	others := r.Cluster.Others(n)
	nobody := fmt.Sprintf("%v:9", others[0].Endpoint().IP)
	r.Fault([]*cluster.Node{n}, "%s is removed, and joins after a kill", n.ID)
	since := logSize(n)
	if err := errors.Join(n.Kill(), r.remove(ctx, n), n.Wipe(), n.Start("-registries="+nobody, "-join-timeout=1m")); err != nil {
		return err
	}
	if err := within(ctx, mendLimit, func() error { return says(n, since, "joining") }); err != nil { // its files are there
		return err
	}
	if err := errors.Join(n.Kill(), n.Start("-registries="+others[0].Bind()+","+others[1].Bind())); err != nil {
		return err
	}
	return r.awaitStarted(ctx)
}

// cutPower cuts the power of nodes one right after the other, and starts them again.
func cutPower(ctx context.Context, r *Run, away time.Duration, nodes ...*cluster.Node) error {
	if err := r.allRun(); err != nil {
		return err
	}
	r.Fault(nodes, "power cut of %d nodes, %s first", len(nodes), nodes[0].ID)
	for _, n := range nodes { // all, before the first disk is mounted again
		if err := n.Kill(); err != nil {
			return err
		}
	}
	kept := make([]string, len(nodes))
	for i, n := range nodes {
		var err error
		if kept[i], err = n.CutPower(r.Rand); err != nil {
			return err
		}
	}
	if err := r.Hold(ctx, away); err != nil {
		return err
	}
	r.Heal("restart: %s", fmt.Sprint(kept))
	for _, n := range nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// awaitStarted waits until the nodes are healthy, but not for one that refuses its
// data.
func (r *Run) awaitStarted(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, mendLimit, fmt.Errorf("not within %v", mendLimit))
	defer cancel()
	var refused error
	err := cluster.Await(ctx, func() error {
		if refused = r.allRun(); refused != nil {
			return nil
		}
		return r.Cluster.Healthy(ctx)
	})
	return errors.Join(refused, err)
}

// allRun is an error if a node has ended by itself.
func (r *Run) allRun() error {
	for _, n := range r.Cluster.Nodes {
		if !n.Running() {
			return fmt.Errorf("%s ended with exit code %d after a power cut", n.ID, n.ExitCode())
		}
	}
	return nil
}

// nextSegment waits until a node has begun a further segment of its log, or some
// seconds if it has none, or is too busy.
func (r *Run) nextSegment(ctx context.Context) error {
	n := r.Cluster.Nodes[r.Rand.IntN(len(r.Cluster.Nodes))]
	before := n.Segments()
	if len(before) == 0 {
		return r.Hold(ctx, r.between(0, 3*time.Second))
	}
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_ = cluster.Await(limit, func() error { // a busy machine is no violation
		if slices.Equal(n.Segments(), before) {
			return fmt.Errorf("%s has the segments %v", n.ID, before)
		}
		return nil
	})
	return context.Cause(ctx)
}
