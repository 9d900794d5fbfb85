package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

type kind int

const (
	register kind = iota
	heartbeat
	match
	matchLinearizable
)

type place int

const (
	allNodes  place = iota
	atLeader        // connections to the leader alone
	atOne           // connections to one node, which does not lead
	oneClient       // one client of the system's own library for all callers
)

// load is one row of the table.
type load struct {
	name    string
	kind    kind
	place   place
	callers int
	batch   int // of one call; 0: a call of its own kind
}

// loads are in the order in which they run: those that add to the data come last.
var loads = []load{
	{"match, 64 callers, one node", match, atOne, 64, 0},
	{"match, 64 callers, 100 keys a call, one node", match, atOne, 64, 100},
	{"match, linearizable, 64 callers, all nodes", matchLinearizable, allNodes, 64, 0},
	{"heartbeat of one lease, 64 callers, all nodes", heartbeat, allNodes, 64, 0},
	{"heartbeat of one lease, 64 callers, at the leader", heartbeat, atLeader, 64, 0},
	{"heartbeats on streams, 64 callers, 1,000 leases a message, at the leader", heartbeat, atLeader, 64, 1000},
	{"registration, 1 caller, all nodes", register, allNodes, 1, 0},
	{"registration, 64 callers, all nodes", register, allNodes, 64, 0},
	{"registration, 64 callers, at the leader", register, atLeader, 64, 0},
	{"registration, 1,000 callers, one client", register, oneClient, 1000, 0},
	{"registration, 64 callers, 100 a call, at the leader", register, atLeader, 64, 100},
}

// What prepare makes in each system.
const (
	groups  = 100
	members = 100 // of each group
	leases  = 1000
)

// connections is how many each node has for the callers of a load.
func (l load) connections() int {
	if l.place == allNodes {
		return max(1, l.callers/64/3)
	}
	return max(1, l.callers/64)
}

// nodes are those that the load goes to.
func (l load) nodes(leader, all int) []int {
	switch l.place {
	case atLeader:
		return []int{leader}
	case atOne:
		return []int{(leader + 1) % all}
	}
	var every []int
	for i := range all {
		every = append(every, i)
	}
	return every
}

// serial numbers what is registered: no two calls of a run have one name.
var serial atomic.Int64

// together calls f for 0 to n-1, 64 at a time, until one fails.
func together(ctx context.Context, n int, f func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// measurement is of one load in one round.
type measurement struct {
	perSecond float64
	p50, p99  time.Duration
}

// warmUp goes before what is measured: connections open, and code and caches are warm.
const warmUp = 500 * time.Millisecond

// measure has each caller make one call after the other. A call that fails ends it.
func measure(ctx context.Context, calls []call, duration time.Duration) (measurement, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	from := time.Now().Add(min(warmUp, duration))
	until := from.Add(duration)
	took := make([][]time.Duration, len(calls))
	var done atomic.Int64
	var wg sync.WaitGroup
	for i, one := range calls {
		wg.Go(func() {
			for began := time.Now(); began.Before(until) && ctx.Err() == nil; {
				n, err := one(ctx)
				ended := time.Now()
				if err != nil {
					cancel(err)
					return
				}
				if ended.After(from) && ended.Before(until) {
					done.Add(int64(n))
					took[i] = append(took[i], ended.Sub(began))
				}
				began = ended
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return measurement{}, err
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return measurement{}, errors.New("no call ended in time")
	}
	slices.Sort(all)
	return measurement{float64(done.Load()) / duration.Seconds(), all[len(all)/2], all[len(all)*99/100]}, nil
}

// newGroup is the group of what a load registers: one would reach the limit of a ring.
func newGroup(i int) string { return fmt.Sprintf("new-%02d", i%groups) }

func groupOf(i int) string  { return fmt.Sprintf("group-%02d", i%groups) }
func memberOf(i int) string { return fmt.Sprintf("member-%08d", i) }
func keyOf(i int) string    { return fmt.Sprintf("user-id-%d", i) }
