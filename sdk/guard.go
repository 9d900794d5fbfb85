package sdk

import (
	"context"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// GuardPhase is what the mass-loss guard does with a group.
type GuardPhase int

// The phases of the guard.
const (
	// GuardIdle: members go when their leases run out.
	GuardIdle GuardPhase = iota
	// GuardWaiting: some fell silent, and it is seen whether others follow.
	GuardWaiting
	// GuardHolding: many fell silent, and all of them are held.
	GuardHolding
	// GuardReleasing: those that stayed silent while held go one after another.
	GuardReleasing
	// GuardAccepted: an operator accepted the loss; nobody is held.
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
	// Silent members are past their leases and still there.
	Silent int
	// Lost members went or fell silent within the guard's window.
	Lost int
	// Returned members beat again since the hold began, and Gone did not.
	Returned, Gone int
	// HoldLeft is the time until the first held member may go; 0 unless holding.
	HoldLeft time.Duration
}

// Guard asks the leader what the mass-loss guard does with a group. See
// [Client.AcceptLoss] to end a hold.
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
