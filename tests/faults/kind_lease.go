//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/cluster"
)

// Kinds with members of their own, which do what those of the load do only by chance.
var leaseKinds = []Kind{
	{Name: "late-refresh", About: "members register again at the very end of their leases, while syncs of the leader take 50 ms longer", Needs: needsStrace, Inject: lateRefresh},
	{Name: "last-beat", About: "SIGSTOP of the leader for 3 s, with heartbeats sent to it that are the last ones of their members", Inject: lastBeat},
}

// lateRefresh: an expiry that a registration overtook must not have an effect.
// Writes are slow, so that the two are on their way together.
func lateRefresh(ctx context.Context, r *Run) error {
	leader, err := r.Leader(ctx)
	if err != nil {
		return err
	}
	r.Fault([]*cluster.Node{leader}, "slow syncs of %s, and late registrations", leader.ID)
	stop, err := r.tamper(ctx, leader, "delay_exit=50000")
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	errs := make([]error, 8)
	waits := make([]time.Duration, len(errs)) // drawn here: the generator is not for several goroutines
	for i := range waits {
		waits[i] = r.between(0, 20*time.Millisecond)
	}
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = r.refresh(limit, leader, fmt.Sprintf("a%d", i), waits[i]) })
	}
	wg.Wait()
	r.Heal("syncs of %s as before", leader.ID)
	return errors.Join(append(errs, stop())...)
}

// refresh keeps a member by registrations that come about when it should
// expire. After each it asks whether the lease is there, long before it may end.
func (r *Run) refresh(ctx context.Context, n *cluster.Node, id string, wait time.Duration) error {
	const ttl = time.Second
	req := &registrypb.RegisterRequest{Group: fmt.Sprintf("late-%d", r.Seed), Id: id, Addr: "10.4.0.1:80", Ttl: durationpb.New(ttl), Instance: []byte("refresher-" + id + "----")}
	for early := wait; ; early = (early + 17*time.Millisecond) % (100 * time.Millisecond) {
		sent := time.Now()
		resp, err := n.Registry().Register(ctx, req)
		acked := time.Now()
		if err == nil {
			err = r.Hold(ctx, 150*time.Millisecond)
		}
		var beat *registrypb.HeartbeatResponse
		if err == nil {
			beat, err = n.Registry().Heartbeat(ctx, &registrypb.HeartbeatRequest{LeaseIds: []uint64{resp.LeaseId}})
		}
		switch told := time.Now(); {
		case ctx.Err() != nil:
			return nil // the time is over
		case err != nil:
			continue // no leader for a moment: nothing was promised
		case len(beat.Lost) > 0 && told.Before(sent.Add(ttl)):
			return fmt.Errorf("%s/%s (TTL %v) was told that it is lost %v after a registration was sent that was acknowledged after %v", req.Group, id, ttl, told.Sub(sent), acked.Sub(sent))
		}
		if r.Hold(ctx, ttl-early) != nil {
			return nil
		}
	}
}

// lastBeat: heartbeats wait in the sockets of a leader that does not know yet
// that it is one no more. It must acknowledge none that its successor does not
// know of, and nobody notices as long as the member goes on beating.
func lastBeat(ctx context.Context, r *Run) error {
	leader, err := r.Leader(ctx)
	if err != nil {
		return err
	}
	const ttl = 3 * time.Second
	group := fmt.Sprintf("last-%d", r.Seed)
	leases := make([]uint64, 6)
	for i := range leases {
		resp, err := leader.Registry().Register(ctx, &registrypb.RegisterRequest{Group: group, Id: fmt.Sprint(i), Addr: "10.5.0.1:80", Ttl: durationpb.New(ttl)})
		if err != nil {
			return fmt.Errorf("register: %w", err)
		}
		leases[i] = resp.LeaseId
	}
	r.Fault([]*cluster.Node{leader}, "SIGSTOP of %s, with last heartbeats on their way", leader.ID)
	errs := []error{leader.Pause(), r.Hold(ctx, 2400*time.Millisecond)}
	promised := make([]time.Time, len(leases)) // zero: nothing was
	var wg sync.WaitGroup
	for i := range leases {
		wg.Go(func() {
			if r.Hold(ctx, time.Duration(i)*80*time.Millisecond) != nil {
				return
			}
			call, cancel := context.WithTimeout(ctx, ttl)
			defer cancel()
			sent := time.Now()
			resp, err := leader.Registry().Heartbeat(call, &registrypb.HeartbeatRequest{LeaseIds: leases[i : i+1]})
			if err == nil && len(resp.Lost) == 0 {
				promised[i] = sent.Add(ttl)
			}
		})
	}
	errs = append(errs, r.Hold(ctx, 600*time.Millisecond))
	r.Heal("SIGCONT")
	errs = append(errs, leader.Resume())
	wg.Wait()
	return errors.Join(append(errs, r.keeps(ctx, r.Cluster.Others(leader)[0], group, promised))...)
}

// keeps reads the group until the last promise ends.
func (r *Run) keeps(ctx context.Context, at *cluster.Node, group string, promised []time.Time) error {
	for {
		resp, err := at.Registry().Members(ctx, &registrypb.MembersRequest{Group: group})
		now := time.Now() // after the read: what it did not see was gone before
		there := make(map[string]bool)
		for _, m := range resp.GetMembers() {
			there[m.Id] = true
		}
		left := false
		for i, until := range promised {
			if !now.Before(until) {
				continue
			}
			if left = true; err == nil && !there[fmt.Sprint(i)] {
				return fmt.Errorf("%s/%d is gone %v before the end of its lease, by a heartbeat that was acknowledged", group, i, until.Sub(now).Round(time.Millisecond))
			}
		}
		if !left {
			return nil
		}
		if err := r.Hold(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
