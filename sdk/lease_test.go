package sdk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// The lease counts from the first attempt that may have taken effect.
func TestWhenALeaseBegins(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault func(context.Context) error
		later bool // than the first attempt
	}{
		"nothing was done": {func(context.Context) error { return because(registrypb.ErrorDetail_NO_LEADER) }, true},
		"no answer":        {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeCluster(t, 2)
				first := make(chan time.Time, 1)
				cl.nodes[0].script(func(ctx context.Context, method string, _ any) error {
					if method != "Register" {
						return nil
					}
					first <- time.Now()
					time.Sleep(time.Millisecond) // of the bubble's clock, which moves by nothing else
					return tt.fault(ctx)
				})
				c := cl.client(cl.target())
				r := register(t, c, Service{Group: "g", ID: "a", Addr: "a:80", TTL: time.Hour}) // no beat comes meanwhile
				renewed := make(chan time.Time, 1)
				c.keeper.post(func() { renewed <- r.lease.renewed })
				if from, began := <-renewed, <-first; from.After(began) != tt.later {
					t.Errorf("the lease begins %v after the first attempt arrived", from.Sub(began))
				}
			})
		})
	}
}

// A lease is called unreachable when a beat was in vain, and not because its
// registration took longer than the TTL; and then with the reason.
func TestUnreachableHasAReason(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		rec := newRecorder()
		r := register(t, c, Service{Group: "g", ID: "a", Addr: "a:80", OnEvent: rec.on})
		late := make(chan bool, 2)
		c.keeper.post(func() {
			k := c.keeper
			k.dropStream()
			r.lease.renewed = time.Now().Add(-time.Hour)
			k.lastErr, k.scanned = nil, time.Time{}
			k.scan(time.Now())
			late <- r.lease.unreachable.given
			k.lastErr, k.scanned = &Error{Op: "heartbeat", Reason: reasonNoLeader}, time.Time{}
			k.scan(time.Now())
			late <- r.lease.unreachable.given
		})
		if before, after := <-late, <-late; before || !after {
			t.Errorf("late before a beat failed: %t, and after: %t", before, after)
		}
		if e := rec.want(t, EventUnreachable); !errors.Is(e.Err, ErrNoLeader) {
			t.Errorf("the reason is %v", e.Err)
		}
	})
}
