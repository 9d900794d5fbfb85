package sdk

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrHeld ends a registration that gave its seat up for a restart: Hold.
var ErrHeld = errors.New("registry: seat held for a restart")

// Hold gives the seat up for a planned restart, and has it kept: for d, 1 s –
// 24 h, or for the TTL if that is longer. Whoever registers the id next has the
// seat again, with the same positions on the ring and at any address: another
// process, or this one by Client.Register. Until then the member is StateHeld,
// stays the owner of its keys, and needs no heartbeats; Match says so and names
// the fallback, the next owner, where routers go that use package routing or
// grpcring. When nobody comes, the seat goes as if it were deregistered, and each
// key stays where it fell back to. A change of the registry's leader begins d
// again, so the seat is kept for at most d × (1 + leader changes).
//
// On success the registration is over: Done is closed, Err is ErrHeld, no beat
// follows, and Close, of the registration or of the client, does nothing more.
// Routers learn of it a moment later: serve until they have, for instance by
// http.Server.Shutdown. On an error it goes on as before; with ErrOutcomeUnknown
// it may be held all the same. Hold may then be called again.
//
// Errors are ErrInvalidArgument for a d out of its limits and for a seat that is
// draining (held, it would get back the keys that it gave away: Close it
// instead); ErrUnknownMember while the lease is lost; ErrFenced if someone else
// has the seat; the registration's Err if it is over; and those of any write.
//
// A seat that is held is open to whoever uses the id, strangers too: who then
// comes second gets ErrConflict.
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

// Drain takes the service's keys away and leaves it registered: from the
// group's next revision on no Match returns it, while its heartbeats go on and
// it may finish its work. Each key goes to its next owner, where it would be
// after a deregistration, so a Close that follows moves no key. Routers learn of
// it a moment later. Resume gives the keys back; so does a new registration of
// the id. A lease that is lost meanwhile is registered again as draining.
//
// Errors are ErrUnknownMember while the lease is lost, ErrFenced if someone
// else has the seat, the registration's Err if it is over, and those of any write.
func (r *Registration) Drain(ctx context.Context) error {
	return r.setState(ctx, "drain", StateDraining, EventDrained)
}

// Resume takes part again after Drain, or after an operator drained or held the
// member: the keys come back. Errors are those of Drain.
func (r *Registration) Resume(ctx context.Context) error {
	return r.setState(ctx, "resume", StateActive, EventResumed)
}

func (r *Registration) setState(ctx context.Context, op string, s State, kind EventKind) error {
	unlock, err := r.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	was := r.draining.Swap(s == StateDraining) // a registration after a loss has it already
	if err := r.update(ctx, op, MemberUpdate{State: &s}); err != nil {
		if !errors.Is(err, ErrOutcomeUnknown) {
			r.draining.Store(was)
		}
		return err
	}
	r.client.keeper.emit(r, Event{Kind: kind})
	return nil
}

// lockState makes Drain, Resume and Hold follow one another, while the
// registration lasts.
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
