//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"

	"github.com/werbenhu/registry/tests/faults/cluster"
	"github.com/werbenhu/registry/tests/faults/load"
)

// Kind is one kind of fault.
type Kind struct {
	Name  string
	About string
	// Needs says why the kind cannot run here; nil, or a nil error: it can.
	Needs func(*Env) error
	// Config changes how the kind's clusters run; may be nil.
	Config func(ctx context.Context, env *Env, cfg *cluster.Config) error
	// Inject injects the fault and takes it back. An error is a violation.
	Inject func(context.Context, *Run) error
	// NoLoss: no member that beats may be lost in it.
	NoLoss bool
	// Fresh: every run gets a new cluster.
	Fresh bool
	// Expect is what nodes may write to their logs that is a violation otherwise.
	Expect *regexp.Regexp
}

// kinds are all there are, in the order in which they run.
func kinds() []Kind {
	return slices.Concat(processKinds, powerKinds, networkKinds, memberKinds, changeKinds, snapshotKinds, diskKinds, clockKinds, leaseKinds, repeatKinds, staleKinds, situationKinds, mixedKinds)
}

// Run is what a kind works with.
type Run struct {
	Cluster *cluster.Cluster
	Load    *load.Load
	Env     *Env
	Rand    *rand.Rand
	Seed    uint64
}

// Fault notes that something is about to be broken. The nodes that are hit are
// not expected to acknowledge anything until Heal.
func (r *Run) Fault(hit []*cluster.Node, format string, args ...any) {
	var ids []string
	for _, n := range hit {
		ids = append(ids, n.ID)
	}
	r.Load.Mark(fmt.Sprintf(format, args...), false, ids...)
}

// Heal notes that everything is about to be mended.
func (r *Run) Heal(format string, args ...any) {
	r.Load.Mark(fmt.Sprintf(format, args...), true)
}

// Hold waits while the fault lasts.
func (r *Run) Hold(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Leader waits for a leader.
func (r *Run) Leader(ctx context.Context) (*cluster.Node, error) { return r.Cluster.Leader(ctx) }

// Follower draws a node that does not lead.
func (r *Run) Follower(ctx context.Context) (*cluster.Node, error) {
	leader, err := r.Leader(ctx)
	if err != nil {
		return nil, err
	}
	followers := r.Cluster.Others(leader)
	return followers[r.Rand.IntN(len(followers))], nil
}

// between draws a duration.
func (r *Run) between(low, high time.Duration) time.Duration {
	return low + time.Duration(r.Rand.Int64N(int64(high-low)))
}
