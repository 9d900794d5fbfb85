package fsm

import (
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

func TestDeregister(t *testing.T) {
	for _, tc := range []struct {
		name                string
		group, id, instance string
		removed             bool
		fenced              []string // instances that may not come back to web/a
	}{
		{name: "by its instance", group: "web", id: "a", instance: "one", removed: true, fenced: []string{"one"}},
		{name: "of any instance", group: "web", id: "a", removed: true, fenced: []string{"one"}},
		{name: "by another instance", group: "web", id: "a", instance: "late", fenced: []string{"late"}},
		{name: "unknown member", group: "web", id: "b"},
		{name: "unknown group", group: "db", id: "a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLog(t)
			l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
			r := l.must(deregister(tc.group, tc.id, tc.instance))
			if r.Removed != tc.removed || (l.member("web", "a") == nil) != tc.removed {
				t.Errorf("removed %t, want %t", r.Removed, tc.removed)
			}
			if n := l.m.State().fences.byInstance.Len(); n != len(tc.fenced) {
				t.Errorf("%d fences, want %d", n, len(tc.fenced))
			}
			for _, instance := range tc.fenced {
				if !l.m.State().fences.has("web", "a", instance) {
					t.Errorf("%q is not fenced", instance)
				}
			}
			if again := l.must(deregister(tc.group, tc.id, tc.instance)); again.Removed {
				t.Error("a retry removed something")
			}
		})
	}
}

// A deregistration that overtakes its registration fences it, even if that would
// have created the group.
func TestDeregisterOvertakesTheRegistration(t *testing.T) {
	for _, group := range []string{"web", "new"} {
		t.Run(group, func(t *testing.T) {
			l := newLog(t)
			l.must(register(newRegistration("web", "other", "10.0.0.9:80", "x")))
			l.must(deregister(group, "a", "one"))
			if r := l.apply(register(newRegistration(group, "a", "10.0.0.1:80", "one"))); r.Err == nil {
				t.Error("the late registration took effect")
			}
		})
	}
}

func TestExpire(t *testing.T) {
	for _, tc := range []struct {
		name    string
		term    uint64
		edit    func(*fsmpb.ExpiredLease)
		between *fsmpb.Command // after the decision, before the entry
		removed bool
	}{
		{name: "lease that ran out", term: 5, removed: true},
		{name: "decided in an earlier term", term: 4},
		{name: "decided in a later term", term: 6},
		{name: "refreshed since", term: 5, between: register(newRegistration("web", "a", "10.0.0.1:80", "one"))},
		{name: "taken over since", term: 5, between: register(newRegistration("web", "a", "10.0.0.1:80", "two"))},
		{name: "gone since", term: 5, between: deregister("web", "a", "")},
		{name: "other epoch", term: 5, edit: func(l *fsmpb.ExpiredLease) { l.Epoch++ }},
		{name: "other lease", term: 5, edit: func(l *fsmpb.ExpiredLease) { l.LeaseId++ }},
		{name: "other group", term: 5, edit: func(l *fsmpb.ExpiredLease) { l.Group = "db" }},
		{name: "other member", term: 5, edit: func(l *fsmpb.ExpiredLease) { l.Id = "b" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLog(t)
			l.term = 5
			l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
			lease := leaseOf("web", l.member("web", "a"))
			if tc.edit != nil {
				tc.edit(lease)
			}
			if tc.between != nil {
				l.must(tc.between)
			}
			held, digest := l.member("web", "a"), l.m.State().Digest()
			r := l.must(expire(tc.term, lease, lease)) // twice: the second finds nothing
			if r.Removed != tc.removed {
				t.Errorf("removed %t, want %t", r.Removed, tc.removed)
			}
			if tc.removed {
				if l.member("web", "a") != nil {
					t.Error("the member is still there")
				}
				// An expired process may come back by itself, unlike a fenced one.
				l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
				return
			}
			if l.member("web", "a") != held || l.m.State().Digest() != digest {
				t.Error("a void expiry changed the state")
			}
		})
	}
}
