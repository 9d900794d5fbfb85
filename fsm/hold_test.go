package fsm

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

const addrA, addrB = "10.0.0.1:80", "10.0.0.2:80"

// deregisterUnlessHeld is the command of a process that ends.
func deregisterUnlessHeld(group, id, instance string) *fsmpb.Command {
	c := deregister(group, id, instance)
	c.GetDeregister().KeepHeld = true
	return c
}

// heldLog has one member, web/a at addrA, which instance one registered and which
// is held: by its instance, or by an operator.
func heldLog(t *testing.T, by string) *log {
	t.Helper()
	l := newLog(t)
	l.must(register(newRegistration("web", "a", addrA, "one")))
	l.must(hold("web", "a", 30_000, by))
	return l
}

func TestHold(t *testing.T) {
	for name, by := range map[string]string{"by its process": "one", "by an operator": ""} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			was := l.must(register(newRegistration("web", "a", addrA, "one")))
			r := l.must(hold("web", "a", 30_000, by))
			m := l.member("web", "a")
			if m.State != ring.Held || m.Hold != 30*time.Second || m.LeaseID != was.LeaseID || m.Epoch != 2 {
				t.Errorf("%+v", m)
			}
			if r.Revision != r.Index || m.ModifiedIndex != r.Index {
				t.Errorf("the change is not visible: %+v", r)
			}
			if got := l.m.State().fences.has("web", "a", "one"); got != (by != "") {
				t.Errorf("fenced: %t", got)
			}
			again := l.must(hold("web", "a", 30_000, by)) // a retry restarts the time
			if m := l.member("web", "a"); m.Epoch != 3 || again.Revision != r.Revision {
				t.Errorf("after a retry: %+v, revision %d", m, again.Revision)
			}
			roundTrip(t, l.m)
		})
	}
}

// What ends a hold, and what does not.
func TestHeldMember(t *testing.T) {
	back := newRegistration("web", "a", addrB, "two")
	for _, tc := range []struct {
		name  string
		by    string // who held it; an operator if empty
		cmd   *fsmpb.Command
		want  error
		gone  bool
		state ring.State
		hold  time.Duration
	}{
		{name: "another process, elsewhere, returns", by: "one", cmd: register(back), state: ring.Active},
		{name: "the same where an operator held it", cmd: register(back), state: ring.Active},
		{name: "a late retry of the process that went", by: "one", cmd: register(newRegistration("web", "a", addrA, "one")), want: ErrFenced},
		{name: "a refresh of one that is still there", cmd: register(newRegistration("web", "a", addrA, "one")), state: ring.Held, hold: 30 * time.Second},
		{name: "an operator's resume", by: "one", cmd: updateMember("web", "a", 0, uint32(ring.Active)+1), state: ring.Active},
		{name: "an operator's drain", by: "one", cmd: updateMember("web", "a", 0, uint32(ring.Draining)+1), state: ring.Draining},
		{name: "another weight", by: "one", cmd: updateMember("web", "a", 5, 0), state: ring.Held, hold: 30 * time.Second},
		{name: "a deregistration", by: "one", cmd: deregister("web", "a", ""), gone: true},
		{name: "a deregistration by the process that held it", by: "one", cmd: deregister("web", "a", "one"), gone: true},
		{name: "the end of the process, held by itself", by: "one", cmd: deregisterUnlessHeld("web", "a", "one"), state: ring.Held, hold: 30 * time.Second},
		{name: "the end of the process, held by an operator", cmd: deregisterUnlessHeld("web", "a", "one"), state: ring.Held, hold: 30 * time.Second},
		{name: "a hold by another instance", by: "one", cmd: hold("web", "a", 1000, "two"), want: ErrFenced},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := heldLog(t, tc.by)
			held := l.member("web", "a")
			r := l.apply(tc.cmd)
			if !errors.Is(r.Err, tc.want) {
				t.Fatalf("got %v, want %v", r.Err, tc.want)
			}
			m := l.member("web", "a")
			switch {
			case tc.want != nil && m != held:
				t.Error("what was refused changed the member")
			case tc.want == nil && tc.gone != (m == nil):
				t.Errorf("gone: %t", m == nil)
			case tc.want == nil && m != nil && (m.State != tc.state || m.Hold != tc.hold):
				t.Errorf("%v, hold %v; want %v, %v", m.State, m.Hold, tc.state, tc.hold)
			}
			roundTrip(t, l.m)
		})
	}
}

// A process that ends keeps its member only while it is held.
func TestEndOfAProcess(t *testing.T) {
	l := newLog(t)
	l.must(register(newRegistration("web", "a", addrA, "one")))
	if r := l.must(deregisterUnlessHeld("web", "a", "one")); !r.Removed {
		t.Error("a member that is not held stayed")
	}
	l.must(register(newRegistration("web", "a", addrA, "two")))
	l.must(hold("web", "a", 1000, "two"))
	l.must(deregisterUnlessHeld("web", "a", "three"))
	if !l.m.State().fences.has("web", "a", "three") {
		t.Error("an instance whose registration may still arrive is not fenced")
	}
}

// A member that returns from a hold has the ring positions of before.
func TestReturnMovesNoKey(t *testing.T) {
	l := newLog(t)
	l.must(register(newRegistration("web", "b", addrB, "x")))
	l.must(register(newRegistration("web", "a", addrA, "one")))
	before := l.m.State().Group("web").Fingerprint()
	l.must(hold("web", "a", 30_000, "one"))
	l.must(register(newRegistration("web", "a", "10.0.0.3:80", "two")))
	if after := l.m.State().Group("web").Fingerprint(); after != before {
		t.Errorf("the ring went from %016x to %016x", before, after)
	}
}

// An expiry that was decided before the start or the end of a hold is void.
func TestHoldVoidsAnExpiry(t *testing.T) {
	for name, between := range map[string]*fsmpb.Command{
		"held":       hold("web", "a", 30_000, "one"),
		"held again": hold("web", "b", 30_000, ""),
		"resumed":    updateMember("web", "b", 0, uint32(ring.Active)+1),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.must(register(newRegistration("web", "a", addrA, "one")))
			l.must(register(newRegistration("web", "b", addrB, "two")))
			l.must(hold("web", "b", 30_000, ""))
			id := between.GetUpdateMember().Id
			decided := leaseOf("web", l.member("web", id))
			l.must(between)
			if l.must(expire(l.term, decided)); l.member("web", id) == nil {
				t.Fatal("an old expiry removed the member")
			}
			if l.must(expire(l.term, leaseOf("web", l.member("web", id)))); l.member("web", id) != nil {
				t.Error("an expiry of now removed nothing")
			}
		})
	}
}

// Only a member's own instance updates it by instance, and a draining member gets
// no keys back by a hold.
func TestUpdateByAnInstance(t *testing.T) {
	drain := func(instance string) *fsmpb.Command {
		c := updateMember("web", "a", 0, uint32(ring.Draining)+1)
		c.GetUpdateMember().Instance = []byte(instance)
		return c
	}
	l := newLog(t)
	l.must(register(newRegistration("web", "a", addrA, "one")))
	if r := l.apply(drain("two")); !errors.Is(r.Err, ErrFenced) || l.member("web", "a").State != ring.Active {
		t.Errorf("a drain by another instance: %v", r.Err)
	}
	l.must(drain("one"))
	if l.m.State().fences.byInstance.Len() != 0 {
		t.Error("a drain fenced its process")
	}
	var field *FieldError
	if r := l.apply(hold("web", "a", 1000, "one")); !errors.As(r.Err, &field) || field.Field != "state" {
		t.Errorf("hold of a draining member by its process: %v", r.Err)
	}
	l.must(hold("web", "a", 1000, "")) // an operator may
}

func TestRegisterWithAState(t *testing.T) {
	s := newRegistration("web", "a", addrA, "one")
	s.StatePlusOne = uint32(ring.Draining) + 1
	l := newLog(t)
	l.must(register(s))
	if m := l.member("web", "a"); m.State != ring.Draining {
		t.Errorf("%v, want draining", m.State)
	}
	s.StatePlusOne = uint32(ring.Active) + 1
	l.must(register(s))
	if m := l.member("web", "a"); m.State != ring.Active {
		t.Errorf("%v, want active", m.State)
	}
}

const (
	heldSnapshot = "../testdata/snapshots/v2-held.snap"
	heldDigest   = 0xc468cf0d8fb67e03
)

// The first snapshot with holds; see goldenSnapshot.
func TestSnapshotWithHoldsIsRead(t *testing.T) {
	if *update {
		l := smallState(t)
		l.must(hold("web", "a", 30_000, "one"))
		l.must(hold("web", "b", 86_400_000, ""))
		if err := os.WriteFile(heldSnapshot, snapshotBytes(t, l.m.State()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(heldSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t)
	if err := l.m.Restore(newReader(data)); err != nil {
		t.Fatal(err)
	}
	if got := l.m.State().Digest(); got != heldDigest {
		t.Errorf("digest %#016x, want %#016x", got, uint64(heldDigest))
	}
	a, b := l.member("web", "a"), l.member("web", "b")
	if a.State != ring.Held || a.Hold != 30*time.Second || b.State != ring.Held || b.Hold != 24*time.Hour {
		t.Errorf("%+v, %+v", a, b)
	}
	if s := l.m.State(); !s.fences.has("web", "a", "one") || s.fences.has("web", "b", "three") {
		t.Error("other fences")
	}
}
