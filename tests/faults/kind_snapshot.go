//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/werbenhu/registry/tests/faults/cluster"
)

var snapshotKinds = []Kind{
	{Name: "snapshot-needed", About: "a follower is down until the log no longer reaches back to it: it gets a snapshot", Config: manySnapshots, Inject: snapshotNeeded},
	{Name: "snapshot-kills", About: "snapshots all the time, and kill -9 of random nodes", Config: manySnapshots, Inject: snapshotKills},
}

// snapshotEvery is as low as a node takes it, so that some seconds of load are
// more than a log holds.
const snapshotEvery = 256

func manySnapshots(_ context.Context, _ *Env, cfg *cluster.Config) error {
	cfg.Flags = append(cfg.Flags, fmt.Sprintf("-snapshot-threshold=%d", snapshotEvery), "-snapshot-interval=1s")
	return nil
}

// installed is what a node says that got a snapshot from the leader.
const installed = "Installed remote snapshot"

func snapshotNeeded(ctx context.Context, r *Run) error {
	n, err := r.Follower(ctx)
	if err != nil {
		return err
	}
	before, err := r.countLog(n, installed)
	if err != nil {
		return err
	}
	st, err := r.Cluster.Others(n)[0].Status(ctx, "")
	if err != nil {
		return err
	}
	var at uint64
	for _, s := range st.Nodes {
		at = max(at, s.AppliedIndex)
	}
	r.Fault([]*cluster.Node{n}, "kill -9 of %s", n.ID)
	if err := n.Kill(); err != nil {
		return err
	}
	err = within(ctx, mendLimit, func() error { // until the log is far past the node
		st, err := r.Cluster.Others(n)[0].Status(ctx, "")
		if err != nil {
			return err
		}
		for _, s := range st.Nodes {
			if s.AppliedIndex > at+4*snapshotEvery {
				return nil
			}
		}
		return fmt.Errorf("the log has not moved on from %d", at)
	})
	if err := errors.Join(err, r.Hold(ctx, time.Second)); err != nil {
		return err
	}
	r.Heal("%s starts", n.ID)
	if err := n.Start(); err != nil {
		return err
	}
	return within(ctx, mendLimit, func() error {
		if now, err := r.countLog(n, installed); err != nil || now == before {
			return fmt.Errorf("%s has not said %q: it did not need a snapshot; %v", n.ID, installed, err)
		}
		return nil
	})
}

// countLog counts a text in a node's log, whatever the case of its letters.
func (r *Run) countLog(n *cluster.Node, text string) (int, error) {
	data, err := os.ReadFile(n.Log)
	return strings.Count(strings.ToLower(string(data)), strings.ToLower(text)), err
}

func snapshotKills(ctx context.Context, r *Run) error {
	for range 3 {
		n := r.Cluster.Nodes[r.Rand.IntN(len(r.Cluster.Nodes))]
		if err := errors.Join(kill(ctx, r, r.between(500*time.Millisecond, 1500*time.Millisecond), n), r.Cluster.AwaitHealth(ctx)); err != nil {
			return err
		}
	}
	return nil
}
