package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// heartbeat is a message as the node received it.
type heartbeat struct {
	at  time.Time
	ids []uint64
}

func heartbeats(n *fakeNode) <-chan heartbeat {
	received := make(chan heartbeat, 1000)
	n.script(func(_ context.Context, _ string, req any) error {
		if req, ok := req.(*registrypb.HeartbeatRequest); ok {
			received <- heartbeat{time.Now(), req.GetLeaseIds()}
		}
		return nil
	})
	return received
}

// Leases that were registered together are in one message from the first on. No pause is
// longer than a third of the TTL.
func TestLeasesAreRenewedTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, ttl = 300, 9 * time.Second
		cl := newFakeCluster(t, 1)
		received := heartbeats(cl.nodes[0])
		c := cl.client(cl.target())
		before := time.Now()
		for i := range n {
			register(t, c, Service{Group: "g", ID: fmt.Sprint(i), Addr: "a:80", TTL: ttl})
		}
		for range 20 {
			h := <-received
			if len(h.ids) != n {
				t.Errorf("a message of %d leases, want %d", len(h.ids), n)
			}
			if pause := h.at.Sub(before); pause < ttl*4/15 || pause > ttl/3 {
				t.Errorf("%v after the one before, want %v to %v", pause, ttl*4/15, ttl/3)
			}
			before = h.at
		}
	})
}

// Leases that were registered one after the other come together within some heartbeats.
// Until then none is renewed late, and none much too early.
func TestLeasesComeTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, ttl = 5, 9 * time.Second
		cl := newFakeCluster(t, 1)
		received := heartbeats(cl.nodes[0])
		c := cl.client(cl.target())
		before := map[uint64]time.Time{}
		for i := range n {
			r := register(t, c, Service{Group: "g", ID: fmt.Sprint(i), Addr: "a:80", TTL: ttl})
			before[r.lease.id] = time.Now()
			time.Sleep(ttl / 3 / n) // of the bubble's clock
		}
		for messages := 1; ; messages++ {
			h := <-received
			for _, id := range h.ids {
				if pause := h.at.Sub(before[id]); pause < ttl/5 || pause > ttl/3 {
					t.Errorf("%v after the one before, want %v to %v", pause, ttl/5, ttl/3)
				}
				before[id] = h.at
			}
			if len(h.ids) == n {
				t.Logf("together after %d messages", messages)
				return
			}
			if messages == 10_000 {
				t.Fatal("never all in one message")
			}
		}
	})
}

// Clients whose leases were made at the same time do not go on sending at the same time.
func TestClientsDoNotBeatTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, each, ttl = 20, 50, 9 * time.Second
		cl := newFakeCluster(t, 1)
		received := heartbeats(cl.nodes[0])
		for i := range n {
			c := cl.client(cl.target())
			for j := range each {
				register(t, c, Service{Group: "g", ID: fmt.Sprint(i, "-", j), Addr: "a:80", TTL: ttl})
			}
		}
		rounds := map[uint64]int{} // by the first lease of a client
		var second []time.Time
		for len(second) < n {
			h := <-received
			client := slices.Min(h.ids)
			if rounds[client]++; rounds[client] == 2 {
				second = append(second, h.at)
			}
		}
		if apart := second[n-1].Sub(second[0]); apart < ttl/60 {
			t.Errorf("%d clients sent within %v", n, apart)
		}
	})
}
