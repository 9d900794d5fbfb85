//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
	"github.com/werbenhu/registry/tests/faults/cluster"
	"github.com/werbenhu/registry/tests/faults/load"
)

var repeatKinds = []Kind{
	{Name: "kill-amid-updates", About: "kill -9 of the leader, three times, while many clients at the other nodes change one member", Inject: killAmidUpdates},
}

// killAmidUpdates: a node that loses the leader in the middle of a write makes it
// again with the next one. Where it took effect before, the second time would
// undo what another client wrote in between; all of them write here.
func killAmidUpdates(ctx context.Context, r *Run) error {
	for i := range 3 {
		leader, err := r.Leader(ctx)
		if err != nil {
			return err
		}
		u := &updates{run: r, group: fmt.Sprintf("updates-%d-%d", r.Seed, i), start: time.Now()}
		if err := u.prepare(ctx, leader); err != nil {
			return err
		}
		work, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for client := range 14 {
			n := r.Cluster.Others(leader)[client%2]
			wg.Go(func() { u.client(work, n, client, client < 8) })
		}
		err = errors.Join(r.Hold(ctx, r.between(100*time.Millisecond, 300*time.Millisecond)), kill(ctx, r, 800*time.Millisecond, leader))
		stop()
		wg.Wait()
		if err := errors.Join(err, u.judge(), r.Cluster.AwaitHealth(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// updates of one member, and reads.
type updates struct {
	run    *Run
	group  string
	start  time.Time
	weight atomic.Uint32 // every update has its own

	mu  sync.Mutex // guards ops
	ops []check.Op
}

const (
	updatedID   = "a"
	updatedAddr = "10.7.0.1:80"
	maxUpdates  = 900 // a weight is at most 1,000
)

func (u *updates) prepare(ctx context.Context, n *cluster.Node) error {
	_, err := n.Registry().SetGroup(ctx, &registrypb.SetGroupRequest{Group: u.group, Config: &registrypb.GroupConfig{VirtualNodes: 64}})
	if err != nil {
		return err
	}
	op := check.Op{Client: -1, Node: n.ID, Kind: check.Register, Member: check.Member{ID: updatedID, Addr: updatedAddr, Weight: u.weight.Add(1)}, Call: u.now()}
	_, err = n.Registry().Register(ctx, &registrypb.RegisterRequest{Group: u.group, Id: updatedID, Addr: updatedAddr, Weight: 1, Ttl: durationpb.New(time.Hour)})
	u.note(op, err)
	return err
}

func (u *updates) now() time.Duration { return time.Since(u.start) }

func (u *updates) note(op check.Op, err error) {
	op.Group, op.Return, op.Outcome = u.group, u.now(), load.Outcome(err)
	if op.Kind == check.Read && err != nil {
		op.Outcome = check.Failed
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ops = append(u.ops, op)
}

// client updates or reads. A client whose update has an unknown outcome ends:
// the search for an order grows with each of those.
func (u *updates) client(ctx context.Context, n *cluster.Node, client int, writes bool) {
	for ctx.Err() == nil && u.run.Hold(ctx, 10*time.Millisecond) == nil {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		op := check.Op{Client: client, Node: n.ID, Kind: check.Read, Call: u.now()}
		var err error
		if weight := u.weight.Load(); writes && weight < maxUpdates {
			op.Kind, op.Member = check.Update, check.Member{ID: updatedID, Weight: u.weight.Add(1)}
			_, err = n.Registry().UpdateMember(call, &registrypb.UpdateMemberRequest{Group: u.group, Id: updatedID, Weight: &op.Member.Weight})
		} else {
			var resp *registrypb.MembersResponse
			resp, err = n.Registry().Members(call, &registrypb.MembersRequest{Group: u.group, Read: &registrypb.ReadOptions{Linearizable: true}})
			for _, m := range resp.GetMembers() {
				op.Members = append(op.Members, check.Member{ID: m.Id, Addr: m.Addr, Weight: m.Weight})
			}
		}
		cancel()
		u.note(op, err)
		if op.Kind == check.Update && err != nil {
			return
		}
	}
}

func (u *updates) judge() error {
	var errs []error
	found, _ := check.Linearizable(u.ops, linearLimit)
	for _, v := range found {
		errs = append(errs, errors.New(v.Text))
	}
	return errors.Join(errs...)
}
