package fsm

import (
	"errors"
	"strings"
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// What may be done to member web/a of token "mine", and whose it is then.
func TestMembersBelongToTokens(t *testing.T) {
	refresh := func() *fsmpb.Command { return register(newRegistration("web", "a", addrA, "one")) }
	restart := func() *fsmpb.Command { return register(newRegistration("web", "a", addrA, "two")) }
	takeOver := func() *fsmpb.Command {
		s := newRegistration("web", "a", addrB, "two")
		s.TakeOver = true
		return register(s)
	}
	for _, tc := range []struct {
		name   string
		before *fsmpb.Command // a state of the member
		cmd    func() *fsmpb.Command
		after  string // whose it is after another's change; "gone"
	}{
		{name: "a refresh", cmd: refresh, after: "mine"},
		{name: "a restart at the same address", cmd: restart, after: "other"},
		{name: "a take-over", cmd: takeOver, after: "other"},
		{name: "the return of a held member", before: hold("web", "a", 30_000, ""), cmd: func() *fsmpb.Command {
			return register(newRegistration("web", "a", addrB, "two"))
		}, after: "other"},
		{name: "an update", cmd: func() *fsmpb.Command { return updateMember("web", "a", 5, 0) }, after: "mine"},
		{name: "an update by its instance", cmd: func() *fsmpb.Command { return hold("web", "a", 30_000, "one") }, after: "mine"},
		{name: "a deregistration", cmd: func() *fsmpb.Command { return deregister("web", "a", "") }, after: "gone"},
		{name: "a deregistration by its instance", cmd: func() *fsmpb.Command { return deregister("web", "a", "one") }, after: "gone"},
		{name: "the end of its process", cmd: func() *fsmpb.Command { return deregisterUnlessHeld("web", "a", "one") }, after: "gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			owned := func() *log {
				l := newLog(t)
				l.must(as("mine", false, register(newRegistration("web", "a", addrA, "one"))))
				if tc.before != nil {
					l.must(as("mine", false, tc.before))
				}
				return l
			}
			for _, caller := range []string{"other", ""} {
				l := owned()
				digest := l.m.State().Digest()
				r := l.apply(as(caller, false, tc.cmd()))
				if !errors.Is(r.Err, ErrNotOwner) || !strings.Contains(r.Err.Error(), `"a" in group "web"`) || strings.Contains(r.Err.Error(), "mine") {
					t.Errorf("by token %q: %v", caller, r.Err)
				}
				if l.m.State().Digest() != digest {
					t.Errorf("by token %q: what was refused changed the state", caller)
				}
			}
			l := owned()
			l.must(as("mine", false, tc.cmd()))
			if m := l.member("web", "a"); m != nil && m.Token != string(tokenID("mine")) {
				t.Errorf("by its token: %+v", m)
			}
			l = owned()
			l.must(as("other", true, tc.cmd()))
			m := l.member("web", "a")
			if gone := m == nil; gone != (tc.after == "gone") || !gone && m.Token != string(tokenID(tc.after)) {
				t.Errorf("by an operator: %+v, want %s", m, tc.after)
			}
			roundTrip(t, l.m)
		})
	}
}

// A member from before tokens is anybody's, and then that of who refreshes it.
func TestMemberWithoutTokenIsAdopted(t *testing.T) {
	l := newLog(t)
	l.must(register(newRegistration("web", "a", addrA, "one")))
	l.must(as("mine", false, updateMember("web", "a", 5, 0)))
	if m := l.member("web", "a"); m.Token != "" {
		t.Errorf("an update gave it to %q", m.Token)
	}
	l.must(as("mine", false, register(newRegistration("web", "a", addrA, "one"))))
	if m := l.member("web", "a"); m.Token != string(tokenID("mine")) {
		t.Errorf("a refresh gave it to %q", m.Token)
	}
	if r := l.apply(as("other", false, deregister("web", "a", ""))); !errors.Is(r.Err, ErrNotOwner) {
		t.Errorf("another's deregistration: %v", r.Err)
	}
}

// A change of hands that no reader sees moves no revision.
func TestAdoptionIsNotVisible(t *testing.T) {
	l := newLog(t)
	before := l.must(register(newRegistration("web", "a", addrA, "one"))).Revision
	if r := l.must(as("mine", false, register(newRegistration("web", "a", addrA, "one")))); r.Revision != before {
		t.Errorf("revision %d became %d", before, r.Revision)
	}
}

// The refusal comes before the one that tells the other's address, and after the one
// that tells a process that its registration was ended.
func TestOrderOfRefusals(t *testing.T) {
	l := newLog(t)
	l.must(as("mine", false, register(newRegistration("web", "a", addrA, "one"))))
	if r := l.apply(as("other", false, register(newRegistration("web", "a", addrB, "two")))); !errors.Is(r.Err, ErrNotOwner) || strings.Contains(r.Err.Error(), addrA) {
		t.Errorf("a conflict with another's: %v", r.Err)
	}
	l.must(as("other", true, register(newRegistration("web", "a", addrA, "two"))))
	if r := l.apply(as("mine", false, register(newRegistration("web", "a", addrA, "one")))); !errors.Is(r.Err, ErrFenced) {
		t.Errorf("the process that lost its id: %v", r.Err)
	}
}

// A deregistration fences an absent member's instance, whoever calls, and nobody's
// that is another's.
func TestFencesOfOtherTokens(t *testing.T) {
	l := newLog(t)
	l.must(as("mine", false, register(newRegistration("web", "a", addrA, "one"))))
	l.must(as("other", false, deregister("web", "b", "late")))
	l.must(as("other", false, deregister("db", "b", "late")))
	if r := l.apply(as("other", false, deregister("web", "a", "late"))); !errors.Is(r.Err, ErrNotOwner) {
		t.Errorf("another's: %v", r.Err)
	}
	f := l.m.State().fences
	if !f.has("web", "b", "late") || !f.has("db", "b", "late") || f.has("web", "a", "late") {
		t.Error("other fences")
	}
}

// A revoked token's members stay until their leases end, and an operator may remove them.
func TestMembersOutliveTheirToken(t *testing.T) {
	l := tokenLog(t)
	l.must(as("agents", false, register(newRegistration("web", "a", addrA, "one"))))
	l.must(as("agents", false, register(newRegistration("web", "b", addrB, "two"))))
	l.must(revokeToken("agents"))
	l.must(expire(l.term, leaseOf("web", l.member("web", "a"))))
	l.must(as("root", true, deregister("web", "b", "")))
	if g := l.m.State().Group("web"); g.Len() != 0 {
		t.Errorf("%d members", g.Len())
	}
}

// Random commands of three callers about few members, against a map of owners.
func TestOwnersAgainstAMap(t *testing.T) {
	r := seed.Rand(t)
	l := newLog(t)
	type holder struct{ owner, instance string }
	model := make(map[string]holder)
	for i := range historyLength() {
		id, caller, operator := "m"+itoa(r.IntN(3)), pick(r, "", "t0", "t1"), r.IntN(4) == 0
		was, there := model[id]
		allowed := !there || was.owner == "" || was.owner == caller || operator
		var cmd *fsmpb.Command
		switch r.IntN(4) {
		case 0:
			if cmd = deregister("web", id, ""); allowed {
				delete(model, id)
			}
		case 1:
			if cmd = updateMember("web", id, uint32(1+i%9), pick[uint32](r, 0, 1, uint32(ring.Draining)+1)); !there {
				continue
			}
		default:
			instance := "i" + itoa(i)
			if there && r.IntN(2) == 0 {
				instance = was.instance
			}
			if cmd = register(newRegistration("web", id, addrA, instance)); !allowed {
				break
			}
			if model[id] = (holder{caller, instance}); was.instance == instance && was.owner != "" {
				model[id] = was
			}
		}
		if err := l.apply(as(caller, operator, cmd)).Err; errors.Is(err, ErrNotOwner) == allowed || allowed && err != nil {
			t.Fatalf("%v of %+v by %q: %v", cmd, was, caller, err)
		}
		if g := l.m.State().Group("web"); g != nil && g.Len() != len(model) {
			t.Fatalf("%d members, want %d", g.Len(), len(model))
		}
		for id, want := range model {
			if m := l.member("web", id); strings.TrimRight(m.Token, "\x00") != want.owner || m.Instance != want.instance {
				t.Fatalf("%v: %s is %+v, want %+v", cmd, id, m, want)
			}
		}
	}
	roundTrip(t, l.m)
}
