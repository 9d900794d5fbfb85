package sdk

import (
	"context"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// GuardPhase is the state of the mass-loss guard for a group.
type GuardPhase int

// The phases of the guard.
const (
	// GuardIdle: members are removed when their leases run out.
	GuardIdle GuardPhase = iota
	// GuardWaiting: some members are silent; the guard waits whether more follow.
	GuardWaiting
	// GuardHolding: many members are silent, and all of them are held.
	GuardHolding
	// GuardReleasing: members that stayed silent are removed one after another.
	GuardReleasing
	// GuardAccepted: an operator accepted the loss; no member is held.
	GuardAccepted
)

// String returns idle, waiting, holding, releasing or accepted.
func (p GuardPhase) String() string {
	switch p {
	case GuardWaiting:
		return "waiting"
	case GuardHolding:
		return "holding"
	case GuardReleasing:
		return "releasing"
	case GuardAccepted:
		return "accepted"
	default:
		return "idle"
	}
}

// Guard is the mass-loss guard's view of one group.
type Guard struct {
	Phase GuardPhase
	// Silent members have expired leases and are not removed yet.
	Silent int
	// Lost members were removed or fell silent within the guard's window.
	Lost int
	// Returned members sent heartbeats since the hold began; Gone were removed.
	Returned, Gone int
	// HoldLeft is the time until the first held member may be removed; 0 unless holding.
	HoldLeft time.Duration
}

// Guard returns the state of the mass-loss guard for a group, from the leader.
// [Client.AcceptLoss] ends a hold.
func (c *Client) Guard(ctx context.Context, group string) (Guard, error) {
	req := &registrypb.GuardRequest{Group: group}
	if err := c.ready("guard", req); err != nil {
		return Guard{}, err
	}
	var resp *registrypb.GuardResponse
	err := c.do(ctx, "guard", writeKind, func(ctx context.Context, a *attempt) (err error) {
		resp, err = a.registry().Guard(ctx, req, a.opts...)
		return err
	})
	if err != nil {
		return Guard{}, err
	}
	return Guard{
		Phase: GuardPhase(resp.GetPhase()), Silent: int(resp.GetSilent()), Lost: int(resp.GetLost()),
		Returned: int(resp.GetReturned()), Gone: int(resp.GetGone()), HoldLeft: resp.GetHoldLeft().AsDuration(),
	}, nil
}
