package store_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// departures records, on the test's own clock, when a member was first removed on any
// node.
type departures struct {
	mu      sync.Mutex // guards removed
	removed map[uint64]time.Time
	seen    chan struct{}
}

func newDepartures() *departures {
	return &departures{removed: make(map[uint64]time.Time), seen: make(chan struct{}, 1000)}
}

func (d *departures) Applied(u *fsm.Update) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range u.Changes {
		if c.Next != nil {
			continue
		}
		if _, known := d.removed[c.Prev.LeaseID]; !known {
			d.removed[c.Prev.LeaseID] = time.Now()
		}
		select {
		case d.seen <- struct{}{}:
		default:
		}
	}
}

func (d *departures) Restored(*fsm.State) {}

func (d *departures) at(lease uint64) (time.Time, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.removed[lease]
	return t, ok
}

func (d *departures) observe(cfg *store.Config) { cfg.Observers = []fsm.Observer{d} }

// await returns when the lease expired.
func (d *departures) await(ctx context.Context, t *testing.T, lease uint64) time.Time {
	t.Helper()
	for {
		if at, ok := d.at(lease); ok {
			return at
		}
		select {
		case <-d.seen:
		case <-ctx.Done():
			t.Fatalf("lease %d never expired", lease)
		}
	}
}

// elapse waits until a time.
func elapse(t *testing.T, until time.Time) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func TestLeaseExpiresOnTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = time.Second
		removed := newDepartures()
		c := storetest.New(t, removed.observe)
		n := c.Start("n1", store.Formation{})
		start := time.Now()
		lease := c.Write(register("web", "a", ttl)).LeaseID
		elapse(t, start.Add(ttl/2))
		sent := time.Now()
		if lost, _, err := n.Renew(c.Context(), []uint64{lease}, nil); err != nil || len(lost) > 0 {
			t.Fatalf("lost %v, %v", lost, err)
		}
		if at := removed.await(c.Context(), t, lease); at.Before(sent.Add(ttl)) {
			t.Errorf("removed %s after the renewal was sent, before its TTL of %s", at.Sub(sent), ttl)
		}
		if lost, _, err := n.Renew(c.Context(), []uint64{lease}, nil); err != nil || len(lost) != 1 {
			t.Errorf("a renewal of an expired lease: lost %v, %v", lost, err)
		}
	})
}

// A new leader has no deadlines: it gives every lease its full TTL.
func TestLeaderChangeGivesTheFullTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = 2 * time.Second
		removed := newDepartures()
		c := storetest.New(t, removed.observe)
		c.Three()
		start := time.Now()
		lease := c.Write(register("web", "a", ttl)).LeaseID
		elapse(t, start.Add(ttl*3/4))
		changed := time.Now()
		if err := c.Leader().Transfer(c.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if at := removed.await(c.Context(), t, lease); at.Before(changed.Add(ttl)) {
			t.Errorf("removed %s after the leader changed, want %s", at.Sub(changed), ttl)
		}
		c.AwaitSame()
	})
}

// A client renews in time, while leaders are killed and cut off: its lease does not
// expire before an acknowledged renewal plus the TTL.
func TestNoRenewedLeaseExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = time.Second
		removed := newDepartures()
		c := storetest.New(t, removed.observe)
		c.Three()
		rounds := 4
		if !storetest.Long() {
			rounds = 2
		}
		r := c.Write(register("web", "a", ttl))
		lease := r.LeaseID

		ctx, stop := context.WithCancel(t.Context())
		var client sync.WaitGroup
		acked := time.Now()
		var renewals atomic.Int32
		early := func() {
			if at, ok := removed.at(lease); ok && at.Before(acked.Add(ttl)) {
				t.Errorf("lease %d went %s after its last acknowledged renewal", lease, at.Sub(acked))
			}
		}
		client.Go(func() {
			for ctx.Err() == nil {
				for _, n := range c.Nodes() {
					ask, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
					sent := time.Now()
					lost, _, err := n.Renew(ask, []uint64{lease}, nil)
					cancel()
					if err != nil {
						continue
					}
					if len(lost) == 0 {
						acked = sent
						renewals.Add(1)
						break
					}
					early()
					if again, err := n.Write(ctx, register("web", "a", ttl)); err == nil {
						lease, acked = again.LeaseID, sent
					}
				}
				early()
				elapse(t, time.Now().Add(50*time.Millisecond))
			}
		})
		for round := range rounds {
			before := renewals.Load()
			c.Await("renewals", func() bool { return renewals.Load() >= before+3 })
			leader := c.Leader()
			if round%2 == 0 {
				leader.Kill()
				c.Leader()
				c.Start(leader.ID, store.Formation{})
				continue
			}
			c.Net.Isolate(leader.Bind)
			c.LeaderOf(others(c, leader)...)
			c.Net.Heal()
		}
		c.Leader()
		stop()
		client.Wait()
		t.Logf("%d renewals", renewals.Load())
		// Without renewals the lease expires.
		removed.await(c.Context(), t, lease)
		early()
	})
}

// A deposed leader still has deadlines. Its expiries take no effect, even after it is
// back.
func TestDeposedLeaderExpiresNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = time.Second
		c, old, _ := deposed(t)
		c.Net.Heal()
		c.AwaitSame()
		leader := c.Leader()
		if leader.ID != old.ID {
			if err := leader.Transfer(c.Context(), old.ID); err != nil {
				t.Fatal(err)
			}
			c.LeaderOf(old.ID)
		}
		lease := c.Write(register("web", "short", ttl)).LeaseID
		c.AwaitSame()
		c.Net.Isolate(old.Bind)
		next := c.LeaderOf("n2", "n3")
		for end := time.Now().Add(2 * ttl); time.Now().Before(end); {
			if lost, _, err := next.Renew(c.Context(), []uint64{lease}, nil); err != nil || len(lost) > 0 {
				t.Fatalf("renewal at the new leader: lost %v, %v", lost, err)
			}
			elapse(t, time.Now().Add(100*time.Millisecond))
		}
		if !old.IsLeader() {
			t.Error("the old leader stepped down: the test shows nothing")
		}
		if old.PendingExpiries() == 0 {
			t.Error("the old leader did not try to expire the lease: the test shows nothing")
		}
		c.Net.Heal()
		c.Await("a renewal", func() bool { // on the leader after the heal
			lost, _, err := c.Leader().Renew(c.Context(), []uint64{lease}, nil)
			return err == nil && len(lost) == 0
		})
		c.AwaitSame()
		for _, n := range c.Nodes() {
			if m := member(n.State(), "web", "short"); m == nil || m.LeaseID != lease {
				t.Errorf("%s: %+v", n.ID, m)
			}
		}
	})
}
