package fsm

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A watcher that is told at once does not wait for rings, but for the one that it
// starts with.
func TestAtOnceDoesNotWaitForTheRing(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	first := l.m.State().Group("web").Revision
	group, prefix := l.m.WatchGroup(KnownGroup{Name: "web"}, AtOnce), l.m.WatchPrefix("w", AtOnce)
	ringed := l.m.WatchGroup(KnownGroup{Name: "web"}, WithRing)
	take(t, group, "web: view of a")
	take(t, ringed, "web: view of a")
	if got := drainPrefix(prefix); got != "web: view of a" {
		t.Errorf("prefix: %s", got)
	}
	release := holdBuilds(l.m)
	defer release()
	l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
	l.must(deregister("web", "a", ""))
	last := l.m.State().Group("web").Revision
	take(t, group, fmt.Sprintf("web: %d→%d +b; %d→%d -a", first, last-1, last-1, last))
	take(t, ringed, "")
	if got, want := drainPrefix(prefix), fmt.Sprintf("web: %d→%d +b; %d→%d -a", first, last-1, last-1, last); got != want {
		t.Errorf("prefix: %s, want %s", got, want)
	}
	if s := l.m.State(); !group.Level(s) || !prefix.Level(s) || ringed.Level(s) {
		t.Error("the ring is awaited by those who do not want it, or not by the one who does")
	}
	// One that starts may have been told of all that at another node.
	late := l.m.WatchGroup(KnownGroup{Name: "web"}, AtOnce)
	take(t, late, "")
	overrun := l.m.WatchGroup(KnownGroup{Name: "web", Revision: last - 1, Fingerprint: 0}, AtOnce)
	l.m.State().Group("web").cell.revisions.changes = nil
	take(t, overrun, "")
	release()
	settle(t, l.m)
	take(t, late, "web: view of b")
	take(t, overrun, "web: view of b")
}

// A ring may be built of a state whose change is still to be published to those
// who are told at once: they wait for that, and miss nothing.
func TestAtOnceWaitsForAChangeThatARingHas(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	g := l.m.State().Group("web")
	at, print := g.Revision, g.Ring().Ring.Fingerprint()
	l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
	settle(t, l.m)
	change := g.cell.revisions.changes[1]
	g.cell.revisions.head, g.cell.revisions.changes = at, g.cell.revisions.changes[:1] // as it is for a moment
	starts := l.m.WatchGroup(KnownGroup{Name: "web"}, AtOnce)
	proven := l.m.WatchGroup(KnownGroup{Name: "web", Revision: at, Fingerprint: print}, AtOnce)
	for name, w := range map[string]*GroupWatch{"starts": starts, "proven": proven} {
		step, wake := w.Poll()
		if wake == nil {
			t.Errorf("%s: %s", name, stepWords(step))
			continue
		}
		select {
		case <-wake:
			t.Errorf("%s: woken too early", name)
		default:
		}
		defer func() {
			select {
			case <-wake:
			default:
				t.Errorf("%s: not woken", name)
			}
		}()
	}
	closeAll(g.cell.revisions.publish(change, 1, at))
	take(t, starts, "web: view of a b")
	take(t, proven, fmt.Sprintf("web: %d→%d +b", at, change.Revision))
}

// Another node may tell of steps that this one takes together: its watchers do
// not go back to the ring before them.
func TestAtOnceDoesNotGoBack(t *testing.T) {
	for name, known := range map[string]KnownGroup{
		"inside a batch": {Name: "web", Revision: 2, Fingerprint: 77}, "inside a batch, unproven": {Name: "web", Revision: 2},
		"with nothing that it says": {Name: "web"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
			settle(t, l.m)
			release := holdBuilds(l.m)
			l.batch(register(newSeat("web", "b", "10.0.0.2:80", "one")), register(newSeat("web", "c", "10.0.0.3:80", "one")))
			w := l.m.WatchGroup(known, AtOnce)
			take(t, w, "")
			if w.Level(l.m.State()) {
				t.Error("level with nothing sent")
			}
			release()
			settle(t, l.m)
			take(t, w, "web: view of a b c")
		})
	}
}

// A watcher that goes on from a revision that is not known here is not level
// before it was given something, and not kept from an older state: the cluster
// may have been rebuilt.
func TestUnknownRevisionIsNotLevel(t *testing.T) {
	for name, timing := range map[string]Timing{"with the ring": WithRing, "at once": AtOnce} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			release := holdBuilds(l.m)
			l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
			w := l.m.WatchGroup(KnownGroup{Name: "web", Revision: 1000}, timing)
			take(t, w, "")
			if w.Level(l.m.State()) {
				t.Error("level with nothing sent")
			}
			release()
			settle(t, l.m)
			take(t, w, "web: view of a")
		})
	}
}

// Watchers that go on together share what they are sent.
func TestJoinedChangesAreShared(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	v := l.m.State().Group("web").Ring()
	l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
	l.must(register(newSeat("web", "c", "10.0.0.3:80", "one")))
	settle(t, l.m)
	var first *GroupChange
	for i := range 3 {
		step, _ := l.m.WatchGroup(KnownGroup{Name: "web", Revision: v.Revision, Fingerprint: v.Ring.Fingerprint()}, AtOnce).Poll()
		if i == 0 {
			first = step.Changes[0]
		} else if step.Changes[0] != first {
			t.Error("made again")
		}
	}
	l.must(register(newSeat("web", "d", "10.0.0.4:80", "one")))
	settle(t, l.m)
	if l.m.State().Group("web").cell.lastJoin.Load() != nil {
		t.Error("kept beyond its ring")
	}
}

// overrun applies more changes than are remembered.
func overrun(l *log) {
	for i := range feedChanges/2 + 5 {
		id := "x" + itoa(i) + "-" + itoa(int(l.index))
		l.must(register(newSeat("web", id, "10.0.0.9:80", id)))
		l.must(deregister("web", id, ""))
	}
}

// A watcher of a prefix whose revisions are forgotten goes on with the next ring.
func TestAtOnceOverrunGoesOnWithTheRing(t *testing.T) {
	for _, resumes := range []bool{false, true} {
		t.Run(fmt.Sprintf("resumes=%t", resumes), func(t *testing.T) {
			l := newLog(t)
			l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
			settle(t, l.m)
			v := l.m.State().Group("web").Ring()
			var known []KnownGroup
			if resumes {
				known = append(known, KnownGroup{Name: "web", Revision: v.Revision, Fingerprint: v.Ring.Fingerprint()})
			}
			w := l.m.WatchPrefix("w", AtOnce, known...)
			drainPrefix(w)
			release := holdBuilds(l.m)
			overrun(l)
			l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
			if got := drainPrefix(w); got != "" {
				t.Errorf("got %s before there was a ring", got)
			}
			_, wake := w.Poll()
			release()
			settle(t, l.m)
			awaitClosed(t, wake)
			last := l.m.State().Group("web").Revision
			if got, want := drainPrefix(w), fmt.Sprintf("web: %d→%d +b", v.Revision, last); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func awaitClosed(t *testing.T, wake <-chan struct{}) {
	t.Helper()
	select {
	case <-wake:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody told the watcher")
	}
}

// duringApply calls f once, when a state was published and its changes were not.
type duringApply struct{ f func() }

func (d *duringApply) Applied(*State, []Change, []uint64) {
	if f := d.f; f != nil {
		d.f = nil
		f()
	}
}
func (d *duringApply) Restored(*State) {}

// A watcher at a ring that came ahead of the revisions is told of the next change
// at once, and not with its ring.
func TestAtOnceAtARingThatCameAhead(t *testing.T) {
	for _, far := range []bool{false, true} {
		t.Run(fmt.Sprintf("overrun=%t", far), func(t *testing.T) {
			during := &duringApply{}
			l := newLog(t, during)
			l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
			settle(t, l.m)
			w := l.m.WatchGroup(KnownGroup{Name: "web"}, AtOnce)
			take(t, w, "web: view of a")
			release := holdBuilds(l.m)
			l.must(register(newSeat("web", "b", "10.0.0.2:80", "one"))) // its build waits for a slot
			if far {
				overrun(l)
			}
			var wake <-chan struct{}
			during.f = func() {
				release()
				g := l.m.State().Group("web")
				for g.Ring().Revision < g.Revision {
					runtime.Gosched()
				}
				if !far { // it knows of that ring from another node
					w = l.m.WatchGroup(KnownGroup{Name: "web", Revision: g.Revision}, AtOnce)
				}
				for wake == nil {
					_, wake = w.Poll()
				}
			}
			l.must(register(newSeat("web", "c", "10.0.0.3:80", "one")))
			release = holdBuilds(l.m)
			defer release()
			last := l.m.State().Group("web").Revision
			l.must(register(newSeat("web", "d", "10.0.0.4:80", "one")))
			awaitClosed(t, wake)
			take(t, w, fmt.Sprintf("web: %d→%d +d", last, last+1))
		})
	}
}

// A group's first ring is awaited even so, because a watcher starts from it.
func TestAtOnceStartsWithTheFirstRing(t *testing.T) {
	l := newLog(t)
	group, prefix := l.m.WatchGroup(KnownGroup{Name: "web"}, AtOnce), l.m.WatchPrefix("w", AtOnce)
	take(t, group, "web: unknown")
	release := holdBuilds(l.m)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	l.must(register(newSeat("web", "b", "10.0.0.1:80", "one")))
	take(t, group, "")
	if got := drainPrefix(prefix); got != "" {
		t.Errorf("prefix: %s", got)
	}
	_, groupWake := group.Poll()
	_, prefixWake := prefix.Poll()
	release()
	settle(t, l.m)
	awaitClosed(t, groupWake)
	awaitClosed(t, prefixWake)
	take(t, group, "web: view of a b")
	if got := drainPrefix(prefix); got != "web: view of a b" {
		t.Errorf("prefix: %s", got)
	}
}

// Entries that are applied together make one step of what is left of them.
func TestEntriesAppliedTogetherMakeOneStep(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	group := l.m.WatchGroup(KnownGroup{Name: "web"}, AtOnce)
	take(t, group, "web: view of a")
	first := l.m.State().Group("web").Revision
	l.batch(
		register(newSeat("web", "b", "10.0.0.2:80", "one")),
		register(newSeat("web", "c", "10.0.0.3:80", "one")),
		deregister("web", "b", ""),
		register(newSeat("web", "a", "10.0.0.1:80", "one")), // a refresh: nobody sees it
		deregister("web", "c", "another"),
		register(newSeat("web", "c", "10.0.0.4:80", "one")),
	)
	take(t, group, fmt.Sprintf("web: %d→%d +c", first, l.m.State().Group("web").Revision))
}

// A member that went and came again in one step is one that was there before,
// for those who are told of the step and the next one together.
func TestJoinedChangesRemoveWhatWasThere(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
	settle(t, l.m)
	v := l.m.State().Group("web").Ring()
	at := v.Revision
	release := holdBuilds(l.m)
	l.batch(deregister("web", "a", ""), register(newSeat("web", "a", "10.0.0.1:80", "two")))
	l.batch(register(newSeat("web", "c", "10.0.0.3:80", "one")))
	l.batch(deregister("web", "a", ""), deregister("web", "c", ""), register(newSeat("web", "b", "10.0.0.9:80", "one")))
	// The ring that is proven with is the last one.
	w := l.m.WatchGroup(KnownGroup{Name: "web", Revision: at + 2, Fingerprint: 77}, AtOnce)
	take(t, w, "")
	release()
	settle(t, l.m)
	take(t, w, fmt.Sprintf("web: %d→%d +b -a", at+2, at+6))
}

// A watcher that goes on at once from a fingerprint is not told anything before
// a ring has proven that its state is one of this group.
func TestAtOnceProvesWhatIsKnown(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	v := l.m.State().Group("web").Ring()
	at, right := v.Revision, v.Ring.Fingerprint()
	resume := func(revision, fingerprint uint64) *GroupWatch {
		return l.m.WatchGroup(KnownGroup{Name: "web", Revision: revision, Fingerprint: fingerprint}, AtOnce)
	}
	take(t, resume(at, right), "")
	take(t, resume(at, 0), "")
	take(t, resume(at, right+1), "web: view of a")
	take(t, resume(at+5, right), "web: view of a")

	release := holdBuilds(l.m)
	l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
	l.must(register(newSeat("web", "c", "10.0.0.3:80", "one")))
	take(t, resume(at, right), fmt.Sprintf("web: %d→%d +b; %d→%d +c", at, at+1, at+1, at+2))
	waiting, blind := resume(at+1, 77), resume(at+1, 0)
	take(t, waiting, "")
	if waiting.Level(l.m.State()) {
		t.Error("level without a proof")
	}
	take(t, blind, fmt.Sprintf("web: %d→%d +c", at+1, at+2))
	release()
	settle(t, l.m)
	now := l.m.State().Group("web").Ring().Ring.Fingerprint()
	step, wake := waiting.Poll()
	if wake != nil || len(step.Changes) != 1 || step.Changes[0].Fingerprint != now || step.Changes[0].From != at+1 || !waiting.Level(l.m.State()) {
		t.Errorf("%s, level %t, want one change with fingerprint %016x", stepWords(step), waiting.Level(l.m.State()), now)
	}
}

// take checks all steps that a watcher has now.
func take(t *testing.T, w *GroupWatch, want string) {
	t.Helper()
	var got []string
	for {
		step, wake := w.Poll()
		if wake != nil {
			break
		}
		got = append(got, stepWords(step))
	}
	if s := joinWords(got); s != want {
		t.Errorf("%s, want %s", s, want)
	}
}

func drainPrefix(w *PrefixWatch) string {
	var got []string
	for {
		steps, wake := w.Poll()
		if wake != nil {
			return joinWords(got)
		}
		for _, s := range steps {
			got = append(got, stepWords(s))
		}
	}
}

func joinWords(steps []string) string {
	for i := 1; i < len(steps); i++ {
		_, steps[i], _ = strings.Cut(steps[i], ": ")
	}
	return strings.Join(steps, "; ")
}

func stepWords(s Step) string {
	var words []string
	switch {
	case s.Unknown:
		words = append(words, "unknown")
	case s.View != nil:
		of := "view of"
		for i := range s.View.Ring.Len() {
			of += " " + s.View.Member(i).ID
		}
		words = append(words, of)
	}
	for _, c := range s.Changes {
		word := fmt.Sprintf("%d→%d", c.From, c.Revision)
		for _, m := range c.Put {
			word += " +" + m.ID
		}
		for _, id := range c.Removed {
			word += " -" + id
		}
		words = append(words, word)
	}
	return s.Group + ": " + strings.Join(words, "; ")
}
