//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/cluster"
	"github.com/werbenhu/registry/tests/source"
)

var clockKinds = []Kind{
	{Name: "clock-1h", About: "the nodes' wall clocks step by an hour, forth and back, each by itself", Config: steppedClocks, Inject: stepClocks(time.Hour), NoLoss: true},
	{Name: "clock-10d", About: "the nodes' wall clocks step by ten days, forth and back, each by itself", Config: steppedClocks, Inject: stepClocks(240 * time.Hour), NoLoss: true},
}

// steppedClocks runs a registry whose wall clock is the machine's plus what a
// file says that every node has mapped. It is built from the same sources with
// a changed time.Now, so that all of the program sees a step, its libraries
// too, as it would see one of the machine's clock. The monotonic clock, which a
// step leaves alone, is left alone.
func steppedClocks(ctx context.Context, env *Env, cfg *cluster.Config) error {
	binary, err := env.steppable(ctx)
	if err != nil {
		return fmt.Errorf("build a registry whose clock can step: %w", err)
	}
	cfg.Binary = binary
	cfg.EnvOf = func(n *cluster.Node) []string { return []string{clockVariable + "=" + clockFile(n)} }
	return nil
}

func clockFile(n *cluster.Node) string { return n.Log + ".clock" }

// setClock steps a node's wall clock to the machine's plus offset.
func setClock(n *cluster.Node, offset time.Duration) error {
	f, err := os.OpenFile(clockFile(n), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(offset/time.Second)), 0)
	return errors.Join(err, f.Close())
}

func stepClocks(by time.Duration) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error {
		leader, err := r.Leader(ctx)
		if err != nil {
			return err
		}
		for i := range 8 {
			n, offset := r.Cluster.Nodes[r.Rand.IntN(len(r.Cluster.Nodes))], []time.Duration{by, -by, 0}[i%3]
			if i < 2 { // the leader's, which stamps, is one of them
				n = leader
			}
			r.Fault(nil, "the clock of %s: %v", n.ID, offset)
			if err := errors.Join(setClock(n, offset), r.Hold(ctx, r.between(300*time.Millisecond, 700*time.Millisecond))); err != nil {
				return err
			}
			if i == 0 {
				if err := r.stamped(ctx, leader, by); err != nil {
					return err
				}
			}
		}
		// A new leader with another clock than the old one's.
		to := r.Cluster.Others(leader)[0]
		if err := errors.Join(setClock(to, by), r.transfer(ctx, to), r.Hold(ctx, time.Second)); err != nil {
			return err
		}
		r.Heal("right clocks")
		var errs []error
		for _, n := range r.Cluster.Nodes {
			errs = append(errs, setClock(n, 0))
		}
		return errors.Join(errs...)
	}
}

// stamped shows that the step is one: the leader's stamps follow it.
func (r *Run) stamped(ctx context.Context, leader *cluster.Node, by time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	group, client := fmt.Sprintf("clock-%d", r.Seed), leader.Registry()
	if _, err := client.Register(ctx, &registrypb.RegisterRequest{Group: group, Id: "a", Addr: "10.3.0.1:80", Ttl: durationpb.New(time.Hour)}); err != nil {
		return err
	}
	resp, err := client.Members(ctx, &registrypb.MembersRequest{Group: group, Read: &registrypb.ReadOptions{Linearizable: true}})
	if err != nil {
		return err
	}
	off := resp.Members[0].RegisteredAt.AsTime().Sub(time.Now().Add(by))
	if off.Abs() > time.Minute {
		return fmt.Errorf("the leader's clock was to be off by %v; a registration is stamped %v", by, resp.Members[0].RegisteredAt.AsTime())
	}
	return nil
}

// clockVariable names the file that holds a process's clock offset.
const clockVariable = "FAULTS_CLOCK_FILE"

// steppable builds the registry with a time package whose Now reads an offset
// in whole seconds from a mapped file. Once.
func (e *Env) steppable(ctx context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	to := filepath.Join(e.dir, "registry-steppable")
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	overlay, err := clockOverlay(ctx, e.dir)
	if err != nil {
		return "", err
	}
	return to, source.Build(ctx, to, program, "-overlay", overlay)
}
