package lease

import (
	"fmt"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// After a pause of the process leases get time to renew.
func TestGrace(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		l.register("short", time.Second)
		l.register("long", 10*time.Second)
		l.register("far", time.Hour)
		after(time.Minute)
		l.Grace(2 * time.Second)
		want(t, "at once", l.dueNow(10))
		after(time.Second)
		want(t, "a lease gets no more than its TTL", l.dueNow(10), "short")
		after(time.Second)
		want(t, "after the grace", l.dueNow(10), "long")
		after(time.Hour - time.Minute - 2*time.Second - 1)
		want(t, "one that was not due gets nothing", l.dueNow(10))
		after(1)
		want(t, "at its own deadline", l.dueNow(10), "far")
	})
}

func TestTableIsEmptyUnlessItLeads(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		id := l.register("a", time.Second)
		l.Follow()
		if lost := l.renew(id); len(lost) != 1 || l.Len() != 0 {
			t.Error("a table that does not lead has leases")
		}
		l.register("b", time.Second)
		after(time.Minute)
		want(t, "while it does not lead", l.dueNow(10))
		// A new leadership: every lease gets the full TTL.
		l.Lead(l.machine)
		after(time.Second - 1)
		want(t, "just under a TTL after the start", l.dueNow(10))
		after(1)
		want(t, "a TTL after the start", l.dueNow(10), "a", "b")
	})
}

// A term's first entry and an installed snapshot give every lease its full TTL.
func TestFullTTLAfterATermStartOrSnapshot(t *testing.T) {
	for name, event := range map[string]func(l *leaseLog){
		"term": func(l *leaseLog) {
			l.term++
			l.apply(&fsmpb.Command{Op: &fsmpb.Command_TermStart{TermStart: &fsmpb.TermStart{Node: "n1"}}})
		},
		"restore": func(l *leaseLog) { l.Restored(l.machine.State()) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *leaseLog) {
				l.register("a", 10*time.Second)
				after(9 * time.Second)
				event(l)
				after(10*time.Second - 1)
				want(t, "just under a TTL later", l.dueNow(10))
				after(1)
				want(t, "a TTL later", l.dueNow(10), "a")
			})
		})
	}
}

// Random registrations, renewals and removals against a plain map of deadlines.
func TestLeaseTableAgainstAMap(t *testing.T) {
	r := seed.Rand(t)
	bubble(t, func(t *testing.T, l *leaseLog) {
		type entry struct {
			id       uint64
			ttl      time.Duration
			deadline time.Time
		}
		model := make(map[string]*entry)
		for range 1000 {
			name := fmt.Sprint("m", r.IntN(30))
			switch e := model[name]; {
			case e == nil || r.IntN(10) == 0: // new, or with another instance: a deregistered one is fenced
				ttl := time.Duration(1+r.IntN(5)) * time.Second
				cmd := registration(name, fmt.Sprint(l.index), ttl)
				cmd.GetRegister().Group = name // a group per member, so that the guard does not act
				model[name] = &entry{l.apply(cmd).LeaseID, ttl, time.Now().Add(ttl)}
			case r.IntN(8) == 0:
				l.apply(&fsmpb.Command{Op: &fsmpb.Command_Deregister{Deregister: &fsmpb.Deregister{Group: name, Id: name}}})
				delete(model, name)
			default:
				if lost := l.renew(e.id); len(lost) != 0 {
					t.Fatalf("%s is lost", name)
				}
				e.deadline = time.Now().Add(e.ttl)
			}
			after(time.Duration(r.IntN(300)) * time.Millisecond)
			leases, _ := l.Due(1 << 20)
			got := make(map[string]bool)
			for _, e := range leases {
				got[e.Id] = true
			}
			for name, e := range model {
				if due := !e.deadline.After(time.Now()); due != got[name] {
					t.Fatalf("%s due: %t, want %t", name, got[name], due)
				}
				if got[name] {
					delete(model, name)
				}
			}
			if len(leases) > 0 {
				l.expire(leases)
			}
			l.checkHeap()
		}
	})
}
