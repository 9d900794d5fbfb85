package lease

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// leaseLog is a state machine with a lease table that follows it.
type leaseLog struct {
	*Table
	tb      testing.TB
	machine *fsm.Machine
	index   uint64
	term    uint64
}

func newLeaseLog(tb testing.TB) *leaseLog {
	t := New(nil)
	m := fsm.New(t)
	return &leaseLog{Table: t, tb: tb, machine: m, term: 1}
}

func (l *leaseLog) apply(cmd *fsmpb.Command) fsm.Result {
	l.tb.Helper()
	data, err := fsm.Encode(cmd)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.index++
	r := l.machine.Apply([]fsm.Entry{{Index: l.index, Term: l.term, Data: data}})[0]
	if r.Err != nil {
		l.tb.Fatal(r.Err)
	}
	return r
}

func registration(id, instance string, ttl time.Duration) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: "web", Id: id, Addr: "a:1", Weight: 1, TtlMs: ttl.Milliseconds(), Instance: []byte(instance),
	}}}
}

// register returns the lease's id.
func (l *leaseLog) register(id string, ttl time.Duration) uint64 {
	return l.apply(registration(id, "one", ttl)).LeaseID
}

// renew is a heartbeat that nobody refuses.
func (t *Table) renew(ids ...uint64) (lost []uint64) {
	lost, _ = t.Renew(ids, nil)
	return lost
}

func (l *leaseLog) expire(leases []*fsmpb.ExpiredLease) bool {
	return l.apply(&fsmpb.Command{Op: &fsmpb.Command_Expire{Expire: &fsmpb.Expire{Term: l.term, Leases: leases}}}).Removed
}

// dueNow returns the names of the members that are due, in order.
func (l *leaseLog) dueNow(limit int) []string {
	leases, _ := l.Due(limit)
	var ids []string
	for _, e := range leases {
		ids = append(ids, e.Id)
	}
	slices.Sort(ids)
	return ids
}

// checkHeap fails the test if the queue is inconsistent.
func (l *leaseLog) checkHeap() {
	l.tb.Helper()
	for i, e := range l.queue {
		if int(e.index) != i || i > 0 && l.queue[(i-1)/2].queuedAt > e.queuedAt || l.byID[e.member.LeaseID] != e {
			l.tb.Fatalf("queue is broken at %d", i)
		}
	}
}

func want(t *testing.T, what string, got []string, ids ...string) {
	t.Helper()
	if !slices.Equal(got, ids) {
		t.Errorf("%s: due are %v, want %v", what, got, ids)
	}
}

// bubble runs a test with virtual time.
func bubble(t *testing.T, f func(t *testing.T, l *leaseLog)) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeaseLog(t)
		l.Lead(l.machine)
		f(t, l)
		l.checkHeap()
	})
}

// after lets virtual time pass.
func after(d time.Duration) { <-time.After(d) }

func TestLeaseExpires(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		l.register("a", 10*time.Second)
		if _, next := l.Due(10); next != 10*time.Second {
			t.Errorf("next deadline in %s, want 10s", next)
		}
		after(10*time.Second - 1)
		want(t, "one nanosecond early", l.dueNow(10))
		after(1)
		want(t, "at the deadline", l.dueNow(10), "a")
		want(t, "a second time", l.dueNow(10))
		if _, next := l.Due(10); next != -1 {
			t.Errorf("with an empty queue the next deadline is in %s", next)
		}
	})
}

func TestRenewMovesTheDeadline(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		id := l.register("a", 10*time.Second)
		after(9 * time.Second)
		if lost := l.renew(id, 77); !slices.Equal(lost, []uint64{77}) {
			t.Errorf("lost %v, want 77", lost)
		}
		queued := l.byID[id].queuedAt
		after(10*time.Second - 1)
		if l.byID[id].queuedAt != queued {
			t.Error("a renewal touched the queue")
		}
		want(t, "renewed", l.dueNow(10))
		if l.byID[id].queuedAt == queued {
			t.Error("a renewed lease at the head was not queued again")
		}
		after(1)
		want(t, "at the new deadline", l.dueNow(10), "a")
	})
}

func TestDueRespectsItsLimit(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		for i := range 5 {
			l.register(fmt.Sprint("m", i), time.Second)
		}
		after(time.Second)
		leases, next := l.Due(3)
		if len(leases) != 3 || next != 0 {
			t.Errorf("%d leases, the next in %s; want 3 and at once", len(leases), next)
		}
		if got := l.dueNow(3); len(got) != 2 {
			t.Errorf("the rest is %v", got)
		}
	})
}

func TestExpiringLeaseRefusesRenewal(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		id := l.register("a", time.Second)
		after(time.Second)
		leases, _ := l.Due(10)
		if lost := l.renew(id); len(lost) != 1 {
			t.Fatal("an expiring lease was renewed")
		}
		if !l.expire(leases) || l.Len() != 0 {
			t.Errorf("%d leases after the expiry", l.Len())
		}
	})
}

func TestRetryGivesTheFullTTL(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		id := l.register("a", time.Second)
		after(time.Second)
		leases, _ := l.Due(10)
		l.Retry(leases)
		if lost := l.renew(id); len(lost) != 0 {
			t.Error("a lease whose expiry failed cannot be renewed")
		}
		after(time.Second - 1)
		want(t, "after the retry", l.dueNow(10))
		after(1)
		want(t, "a TTL later", l.dueNow(10), "a")
		l.Retry([]*fsmpb.ExpiredLease{{LeaseId: 99}}) // removed meanwhile
	})
}

func TestRefreshBumpsTheEpoch(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		id := l.register("a", time.Second)
		after(time.Second)
		decided, _ := l.Due(10)
		if again := l.register("a", 3*time.Second); again != id {
			t.Fatalf("a refresh changed the lease from %d to %d", id, again)
		}
		if l.expire(decided) {
			t.Fatal("an expiry from before the refresh removed the member")
		}
		if lost := l.renew(id); len(lost) != 0 {
			t.Error("the refreshed lease is lost")
		}
		l.Retry(decided) // the result of the void expiry comes late
		after(3*time.Second - 1)
		want(t, "with the new TTL", l.dueNow(10))
		after(1)
		due, _ := l.Due(10)
		if len(due) != 1 || due[0].Epoch != decided[0].Epoch+1 {
			t.Errorf("due %v after epoch %d", due, decided[0].Epoch)
		}
	})
}

func TestRemovalAndTakeover(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		old := l.register("a", 5*time.Second)
		other := l.register("b", time.Second)
		now := l.apply(registration("a", "two", time.Second)).LeaseID
		l.apply(&fsmpb.Command{Op: &fsmpb.Command_Deregister{Deregister: &fsmpb.Deregister{Group: "web", Id: "b"}}})
		if lost := l.renew(old, other, now); !slices.Equal(lost, []uint64{old, other}) {
			t.Errorf("lost %v, want %d and %d", lost, old, other)
		}
		if l.Len() != 1 || len(l.queue) != 1 {
			t.Errorf("%d leases, %d queued", l.Len(), len(l.queue))
		}
		after(time.Second)
		want(t, "after the takeover", l.dueNow(10), "a")
	})
}

// There are as many leases as members, and a renewal touches one cache line of a lease.
func TestLeaseIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(lease{}); size > 64 {
		t.Errorf("a lease takes %d bytes, want at most 64", size)
	}
}

// The table keeps no member of an earlier state alive.
func TestTableHasTheNewestMember(t *testing.T) {
	l := newLeaseLog(t)
	l.Lead(l.machine)
	id := l.register("a", time.Minute)
	l.apply(&fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{Group: "web", Id: "a", Weight: 5}}})
	if now := l.machine.State().Group("web").Member("a"); l.byID[id].member != now {
		t.Errorf("the lease has a member of weight %d, want %d", l.byID[id].member.Weight, now.Weight)
	}
}
