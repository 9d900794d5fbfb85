package fsm

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

func restoreBegin() *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_RestoreBegin{RestoreBegin: &fsmpb.RestoreBegin{}}}
}

func restorePart(id, number uint64, data []byte) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_RestorePart{RestorePart: &fsmpb.RestorePart{Id: id, Number: number, Data: data}}}
}

func restoreEnd(id, digest uint64, sameLog bool) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_RestoreEnd{RestoreEnd: &fsmpb.RestoreEnd{Id: id, Digest: digest, SameLog: sameLog}}}
}

// stage stages a state in small parts and returns the id.
func (l *log) stage(from *State) (id uint64) {
	l.tb.Helper()
	id = l.must(restoreBegin()).Index
	for part := range slices.Chunk(snapshotBytes(l.tb, from), 100) {
		l.must(restorePart(id, l.m.State().parts(), part))
	}
	return id
}

func (s *State) parts() uint64 { return uint64(len(s.staged.parts)) }

func (l *log) restore(from *State, sameLog bool) Result {
	l.tb.Helper()
	return l.must(restoreEnd(l.stage(from), from.Digest(), sameLog))
}

func verified(t *testing.T, s *State) {
	t.Helper()
	if err := s.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreOfThisLog: what was written since the snapshot is gone, revisions and
// epochs rise, fingerprints and lease ids are the snapshot's.
func TestRestoreOfThisLog(t *testing.T) {
	l := tokenState(t)
	saved := l.m.State()
	l.must(register(newRegistration("web", "late", "10.0.0.9:80", "late")))
	l.must(deregister("web", "a", "one"))
	l.must(&fsmpb.Command{Op: &fsmpb.Command_DeleteGroup{DeleteGroup: &fsmpb.DeleteGroup{Group: "db"}}})
	l.must(register(newRegistration("other", "x", "10.0.0.8:80", "x")))
	l.must(setNode(&fsmpb.Node{Id: "n2", Bind: "n2:7370", Addr: "n2:9800"}))
	l.must(createToken(newTestToken("late", grant(Discover, ""))))

	r := l.restore(saved, true)
	s := l.m.State()
	verified(t, s)
	if s.Index() != r.Index || s.GroupCount() != saved.GroupCount() || s.MemberCount() != saved.MemberCount() || s.Group("other") != nil {
		t.Errorf("index %d, %d groups, %d members", s.Index(), s.GroupCount(), s.MemberCount())
	}
	if s.Node("n2") == nil || s.Term() != saved.Term() {
		t.Error("nodes or term were restored, too")
	}
	if s.TokenNamed("late") != nil || s.TokenNamed("agents") == nil || s.TokensRevision() != r.Index {
		t.Error("tokens are not the snapshot's")
	}
	for g := range saved.Groups {
		now := s.Group(g.Name)
		if now.Revision != r.Index || now.Fingerprint() != g.Fingerprint() || now.Params != g.Params {
			t.Errorf("group %s: revision %d, fingerprint %016x, was %016x", g.Name, now.Revision, now.Fingerprint(), g.Fingerprint())
		}
		for m := range g.Members {
			n := now.Member(m.ID)
			if n.LeaseID != m.LeaseID || n.CreatedIndex != m.CreatedIndex || n.Epoch != r.Index || n.ModifiedIndex != r.Index || !visiblyEqual(n, m) || n.Token != m.Token {
				t.Errorf("%+v was %+v", n, m)
			}
		}
	}
	roundTrip(t, l.m)
}

// TestRestoredMemberIsNotFenced: its process may go on, as before the deregistration
// that the restoration undoes.
func TestRestoredMemberIsNotFenced(t *testing.T) {
	l := smallState(t)
	saved := l.m.State()
	l.must(deregister("web", "a", "one"))
	l.must(register(newRegistration("web", "gone", "10.0.0.7:80", "gone")))
	l.must(deregister("web", "gone", "gone"))
	l.restore(saved, true)
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	if r := l.apply(register(newRegistration("web", "gone", "10.0.0.7:80", "gone"))); !errors.Is(r.Err, ErrFenced) {
		t.Errorf("a fence of a member that the snapshot lacks is gone: %v", r.Err)
	}
	verified(t, l.m.State())
}

// TestRestoreLeavesTheIDToItsProcess: a process that has an id now gets it back from its
// own address, and not a conflict with one that was there when the snapshot was saved.
func TestRestoreLeavesTheIDToItsProcess(t *testing.T) {
	l := smallState(t)
	saved := l.m.State()
	takeover := newRegistration("web", "a", "10.0.0.2:80", "newer")
	takeover.TakeOver = true
	l.must(register(takeover))
	l.restore(saved, true)
	m := l.member("web", "a")
	if m.State != ring.Held || m.Hold != m.TTL || m.Addr != "10.0.0.1:80" {
		t.Errorf("%+v", m)
	}
	if now, was := l.m.State().Group("web").Fingerprint(), saved.Group("web").Fingerprint(); now != was {
		t.Errorf("fingerprint %016x, was %016x", now, was)
	}
	takeover.TakeOver = false
	l.must(register(takeover))
	if m := l.member("web", "a"); m.Instance != "newer" || m.State != ring.Active {
		t.Errorf("%+v", m)
	}
}

// TestEarlierExpiryDoesNotReachRestoredLeases: every lease gets its full TTL.
func TestEarlierExpiryDoesNotReachRestoredLeases(t *testing.T) {
	l := smallState(t)
	saved := l.m.State()
	decided := expire(l.term, leaseOf("web", l.member("web", "a")))
	l.restore(saved, true)
	if l.must(decided).Removed {
		t.Error("an expiry from before the restoration removed a restored member")
	}
}

// TestRestoreOfAnotherLog: lease ids are new, and are none that either log gives out.
func TestRestoreOfAnotherLog(t *testing.T) {
	from := tokenState(t).m.State()
	l := newLog(t)
	l.must(termStart("n9"))
	l.must(register(newRegistration("web", "a", "10.0.0.3:80", "here")))
	seen := map[uint64]bool{l.member("web", "a").LeaseID: true}
	for range 2 {
		r := l.restore(from, false)
		s := l.m.State()
		verified(t, s)
		roundTrip(t, l.m)
		for g := range s.Groups {
			if g.Revision != r.Index || g.Fingerprint() != from.Group(g.Name).Fingerprint() {
				t.Errorf("%s: revision %d, fingerprint %016x", g.Name, g.Revision, g.Fingerprint())
			}
			for m := range g.Members {
				if seen[m.LeaseID] || m.LeaseID <= restoredLease || m.LeaseID >= 1<<53 || m.CreatedIndex != r.Index {
					t.Errorf("lease %d, created at %d", m.LeaseID, m.CreatedIndex)
				}
				seen[m.LeaseID] = true
			}
		}
	}
}

// TestNothingOfARestorationShowsBeforeItsEnd, whichever way it ends.
func TestNothingOfARestorationShowsBeforeItsEnd(t *testing.T) {
	from := tokenState(t).m.State()
	for name, end := range map[string]func(l *log, id uint64) *fsmpb.Command{
		"discarded": func(_ *log, id uint64) *fsmpb.Command {
			return &fsmpb.Command{Op: &fsmpb.Command_RestoreEnd{RestoreEnd: &fsmpb.RestoreEnd{Id: id, Discard: true}}}
		},
		"another leader": func(l *log, _ uint64) *fsmpb.Command { return termStart("n1") },
	} {
		t.Run(name, func(t *testing.T) {
			l := smallState(t)
			before := l.m.State()
			id := l.stage(from)
			verified(t, l.m.State())
			roundTrip(t, l.m) // a node that installs a snapshot in between has the parts
			if s := l.m.State().WithoutStaged(); s.Digest() != before.Digest() {
				t.Errorf("digest %016x, was %016x", s.Digest(), before.Digest())
			}
			l.must(end(l, id))
			if s := l.m.State(); s.Digest() != before.Digest() || s.staged != nil {
				t.Errorf("digest %016x, was %016x", s.Digest(), before.Digest())
			}
			if r := l.apply(restoreEnd(id, from.Digest(), false)); !errors.Is(r.Err, ErrNoRestore) {
				t.Errorf("restored what was dropped: %v", r.Err)
			}
		})
	}
}

func TestRestoreThatIsRefused(t *testing.T) {
	from := tokenState(t).m.State()
	incomplete := func(l *log) *fsmpb.Command {
		id := l.must(restoreBegin()).Index
		l.must(restorePart(id, 0, snapshotBytes(t, from)[:200]))
		return restoreEnd(id, from.Digest(), false)
	}
	for name, tt := range map[string]struct {
		on   func(tb testing.TB) *log
		cmd  func(l *log) *fsmpb.Command
		want error
	}{
		"a part is missing":   {smallState, incomplete, ErrCorruptSnapshot},
		"another digest":      {smallState, func(l *log) *fsmpb.Command { return restoreEnd(l.stage(from), 1, false) }, ErrCorruptSnapshot},
		"nothing staged":      {smallState, func(*log) *fsmpb.Command { return restoreEnd(7, 1, false) }, ErrNoRestore},
		"a part out of order": {smallState, func(l *log) *fsmpb.Command { return restorePart(l.must(restoreBegin()).Index, 1, nil) }, ErrNoRestore},
		"tokens would end": {tokenState, func(l *log) *fsmpb.Command {
			s := smallState(t).m.State()
			return restoreEnd(l.stage(s), s.Digest(), false)
		}, ErrInvalid},
		"it is of a later history": {newLogOf, func(l *log) *fsmpb.Command { return restoreEnd(l.stage(later(t)), later(t).Digest(), true) }, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			l := tt.on(t)
			before := l.m.State()
			cmd := tt.cmd(l)
			if r := l.apply(cmd); !errors.Is(r.Err, tt.want) {
				t.Errorf("got %v, want %v", r.Err, tt.want)
			}
			if s := l.m.State().WithoutStaged(); s.Digest() != before.Digest() || s.Index() != l.index {
				t.Errorf("the state changed to digest %016x at %d", s.Digest(), s.Index())
			}
		})
	}
}

func newLogOf(tb testing.TB) *log { return newLog(tb) }

// later is a state of a higher index than a new log reaches.
func later(tb testing.TB) *State {
	l := newLog(tb)
	l.index = 1_000
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	return l.m.State()
}

// TestRestoreInTheMiddleOfABatch: the state of the entry's index is the restored one for
// everybody, and the results are as of entries one by one.
func TestRestoreInTheMiddleOfABatch(t *testing.T) {
	var states []*State
	var restored int
	l := newLog(t, watcherOf{func(s *State) { states = append(states, s) }, &restored})
	l.must(register(newRegistration("web", "a", "10.0.0.1:80", "one")))
	saved := l.m.State()
	id := l.stage(saved)
	states = nil
	entries := []Entry{
		l.entry(register(newRegistration("web", "lost", "10.0.0.2:80", "two"))),
		l.entry(restoreEnd(id, saved.Digest(), true)),
		l.entry(register(newRegistration("web", "kept", "10.0.0.3:80", "three"))),
	}
	results := l.m.Apply(entries)
	for i, r := range results {
		if r.Err != nil || r.Index != entries[i].Index {
			t.Errorf("entry %d: %+v", entries[i].Index, r)
		}
	}
	if l.member("web", "lost") != nil || l.member("web", "kept") == nil || l.member("web", "a") == nil {
		t.Error("the entries had no effect in their order")
	}
	if restored != 1 || len(states) != 3 || states[0].Index() != entries[0].Index || states[1].Index() != entries[1].Index || states[1].MemberCount() != 1 {
		t.Errorf("%d restored, states %v", restored, states)
	}
	verified(t, l.m.State())
}

// watcherOf gets all published states.
type watcherOf struct {
	state    func(*State)
	restored *int
}

func (w watcherOf) Applied(u *Update) { w.state(u.State) }

func (w watcherOf) Restored(s *State) {
	*w.restored++
	w.state(s)
}

func TestRestoreChecksValues(t *testing.T) {
	for name, change := range map[string]func(*Member){
		"address":  func(m *Member) { m.Addr = "nowhere" },
		"TTL":      func(m *Member) { m.TTL = time.Millisecond },
		"name":     func(m *Member) { m.ID = "a/b" },
		"metadata": func(m *Member) { m.Meta = []Pair{{Key: "k", Value: string(bytes.Repeat([]byte{'x'}, MaxMetaBytes))}} },
		"instance": func(m *Member) { m.Instance = "" },
	} {
		t.Run(name, func(t *testing.T) {
			s := smallState(t).m.State()
			m := *s.Group("web").Member("a")
			change(&m)
			b := newBatch(s, new(metas))
			b.index = 1
			b.put(b.group("web"), &m)
			bad, _ := b.finish()
			if err := New().State().CheckRestore(bad); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := New().State().CheckRestore(smallState(t).m.State()); err != nil {
		t.Error(err)
	}
}
