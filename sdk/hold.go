package sdk

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrHeld: Hold ended the registration for a restart.
var ErrHeld = errors.New("registry: member held for a restart")

// Hold ends the registration for a planned restart and keeps the member: for d, 1 s –
// 24 h, or for the TTL if that is longer. The next registration of the id takes over,
// with the same positions on the ring and at any address: by another process, or by
// this one with Client.Register. Until then the member is StateHeld, owns its keys,
// and needs no heartbeats; Match returns its fallback, the next owner, which serves
// the keys in routers that use package routing or grpcring. If no registration
// follows, the member is removed, and each key stays at its fallback. A change of
// the registry's leader starts d again, so the member is kept for at most
// d × (1 + leader changes).
//
// On success the registration has ended: Done is closed, Err is ErrHeld, no
// heartbeat follows, and Close has no effect. Routers see the hold a moment later:
// serve until then, for instance by http.Server.Shutdown. On an error the
// registration continues; after ErrOutcomeUnknown the member may be held. Hold may
// then be called again.
//
// Errors are ErrInvalidArgument for a d outside its limits and for a draining member
// (held, it would get its keys back: Close it instead); ErrUnknownMember while the
// lease is lost; ErrFenced if another process has the id; the registration's Err if
// it has ended; and those of any write.
//
// Any process may register the id of a held member; a second one gets ErrConflict.
func (r *Registration) Hold(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return invalid("hold", "hold", "1s to 24h", "the hold is 0")
	}
	unlock, err := r.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	held := StateHeld
	if err := r.update(ctx, "hold", MemberUpdate{State: &held, Hold: d}); err != nil {
		return err
	}
	if r.end(ErrHeld) {
		r.client.keeper.release(r.lease)
	}
	return nil
}

// Drain gives the service's keys away and keeps it registered: from the group's next
// revision on no Match returns it, while its heartbeats continue and it may finish
// its work. Each key goes to its next owner, as after a deregistration, so a later
// Close moves no key. Routers see the change a moment later. Resume gives the keys
// back, and so does a new registration of the id. If the lease is lost meanwhile, the
// service is registered again as draining.
//
// Errors are ErrUnknownMember while the lease is lost, ErrFenced if another process
// has the id, the registration's Err if it has ended, and those of any write.
func (r *Registration) Drain(ctx context.Context) error {
	return r.setState(ctx, "drain", StateDraining, EventDrained)
}

// Resume makes the member active again after Drain, or after an operator drained or
// held it: it gets its keys back. Errors are those of Drain.
func (r *Registration) Resume(ctx context.Context) error {
	return r.setState(ctx, "resume", StateActive, EventResumed)
}

func (r *Registration) setState(ctx context.Context, op string, s State, kind EventKind) error {
	unlock, err := r.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	was := r.draining.Swap(s == StateDraining) // a registration after a loss requests it from now on
	if err := r.update(ctx, op, MemberUpdate{State: &s}); err != nil {
		if !errors.Is(err, ErrOutcomeUnknown) {
			r.draining.Store(was)
		}
		return err
	}
	r.client.keeper.emit(r, Event{Kind: kind})
	return nil
}

// lockState serializes Drain, Resume and Hold, while the registration lasts.
func (r *Registration) lockState(ctx context.Context) (unlock func(), err error) {
	select {
	case r.stateLock <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := r.Err(); err != nil {
		<-r.stateLock
		return nil, err
	}
	return func() { <-r.stateLock }, nil
}

func (r *Registration) update(ctx context.Context, op string, u MemberUpdate) error {
	if _, err := r.client.updateMember(ctx, op, r.service.Group, r.service.ID, u, r.instance); err != nil {
		return fmt.Errorf("%s %s/%s: %w", op, r.service.Group, r.service.ID, err)
	}
	return nil
}
