package fsm

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// nextStep waits for the next step.
func nextStep(ctx context.Context, w *GroupWatch) (Step, error) {
	for {
		step, wake := w.Poll()
		if wake == nil {
			return step, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return Step{}, context.Cause(ctx)
		}
	}
}

// A watcher of a group goes on when a snapshot replaces the state, and is told
// of what the snapshot holds.
func TestWatchGoesOnAfterARestore(t *testing.T) {
	for name, timing := range map[string]Timing{"with the ring": WithRing, "at once": AtOnce} {
		t.Run(name, func(t *testing.T) { testRestore(t, timing) })
	}
}

func testRestore(t *testing.T, timing Timing) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w := l.m.WatchGroup(KnownGroup{Name: "web"}, timing)
	if step, err := nextStep(ctx, w); err != nil || step.View == nil || step.View.Ring.Len() != 1 {
		t.Fatalf("first step %+v, %v", step, err)
	}
	other := newLog(t)
	for _, id := range []string{"a", "b", "c"} {
		other.must(register(newSeat("web", id, "10.0.0.1:80", id)))
	}
	var snapshot bytes.Buffer
	if err := other.m.State().WriteSnapshot(&snapshot); err != nil {
		t.Fatal(err)
	}
	got := make(chan Step, 1)
	go func() {
		if step, err := nextStep(ctx, w); err == nil {
			got <- step
		}
	}()
	if err := l.m.Restore(&snapshot); err != nil {
		t.Fatal(err)
	}
	select {
	case step := <-got:
		if step.View == nil || step.View.Ring.Len() != 3 {
			t.Errorf("step after the restore: %+v", step)
		}
	case <-ctx.Done():
		t.Error("the watcher was never told")
	}
}

// Changes lead from one published ring to the next; a revision that is not
// known starts over.
func TestFeedChainsOrStartsOver(t *testing.T) {
	var f feed
	f.publish(&GroupChange{Revision: 12}, 1, 0)
	f.publish(&GroupChange{From: 12, Revision: 15}, 1, 0)
	f.publish(&GroupChange{From: 15, Revision: 16}, 1, 0)
	for from, want := range map[uint64]int{12: 2, 15: 1, 16: 0} {
		if changes, _, ok := f.after(from); !ok || len(changes) != want {
			t.Errorf("after %d: %d changes, %t, want %d", from, len(changes), ok, want)
		}
	}
	if _, _, ok := f.after(14); ok {
		t.Error("a way was found from a revision that was never published")
	}
	_, wake, _ := f.after(16)
	closeAll(f.publish(&GroupChange{From: 20, Revision: 21}, 1, 0)) // a gap: nothing leads over it
	select {
	case <-wake:
	default:
		t.Error("not woken")
	}
	if _, _, ok := f.after(16); ok {
		t.Error("a way was found over a gap")
	}
	for i := range uint64(2 * feedChanges) {
		f.publish(&GroupChange{From: 21 + i, Revision: 22 + i}, 1, 0)
	}
	if len(f.changes) > feedChanges {
		t.Errorf("%d changes are remembered, at most %d", len(f.changes), feedChanges)
	}
}

// A watcher is level with a state when it was given all of it: a change whose
// ring is still being built is missing.
func TestLevelWaitsForTheRing(t *testing.T) {
	l := newLog(t)
	group, prefix := l.m.WatchGroup(KnownGroup{Name: "web"}, WithRing), l.m.WatchPrefix("w", WithRing)
	check := func(when string, want bool) {
		t.Helper()
		for {
			if _, wake := group.Poll(); wake != nil {
				break
			}
		}
		for {
			if _, wake := prefix.Poll(); wake != nil {
				break
			}
		}
		if s := l.m.State(); group.Level(s) != want || prefix.Level(s) != want {
			t.Errorf("%s: level %t, of the prefix %t, want %t", when, group.Level(s), prefix.Level(s), want)
		}
	}
	check("no group", true)
	release := holdBuilds(l.m)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	check("its first ring is being built", false)
	release()
	settle(t, l.m)
	check("its first ring is there", true)
	release = holdBuilds(l.m)
	l.must(register(newSeat("web", "b", "10.0.0.2:80", "one")))
	check("the next ring is being built", false)
	release()
	settle(t, l.m)
	check("the next ring is there", true)
}

// A watcher that knows groups is told of what changed in them, of those that
// are gone, and of those that it does not know.
func TestPrefixGoesOnFromKnownGroups(t *testing.T) {
	l := newLog(t)
	for _, g := range []string{"w1", "w2", "w3", "x1"} {
		l.must(register(newSeat(g, "a", "10.0.0.1:80", "one")))
	}
	settle(t, l.m)
	var known []KnownGroup
	for _, g := range []string{"w1", "w2"} {
		v := l.m.State().Group(g).Ring()
		known = append(known, KnownGroup{g, v.Revision, v.Ring.Fingerprint()})
	}
	known = append(known, KnownGroup{"w9", 3, 4})
	l.must(register(newSeat("w2", "b", "10.0.0.2:80", "one")))
	settle(t, l.m)
	got := map[string]string{}
	w := l.m.WatchPrefix("w", WithRing, known...)
	for {
		steps, wake := w.Poll()
		if wake != nil {
			break
		}
		for _, s := range steps {
			switch {
			case s.Unknown:
				got[s.Group] += "unknown"
			case s.View != nil:
				got[s.Group] += "view"
			default:
				got[s.Group] += fmt.Sprint(len(s.Changes))
			}
		}
	}
	if want := map[string]string{"w2": "1", "w3": "view", "w9": "unknown"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !w.Level(l.m.State()) {
		t.Error("not level")
	}
}

// A watcher that is far behind takes the changes a few at a time, and all.
func TestStepsAreSmall(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "m", "10.0.0.1:80", "one")))
	settle(t, l.m)
	w := l.m.WatchGroup(KnownGroup{Name: "web"}, WithRing)
	if step, _ := w.Poll(); step.View == nil {
		t.Fatal("no view")
	}
	const more = 5*changesAtOnce + 3
	for i := range more {
		l.must(register(newSeat("web", "m"+itoa(i), "10.0.0.1:80", "one")))
		settle(t, l.m)
	}
	taken := 0
	for {
		step, wake := w.Poll()
		if wake != nil {
			break
		}
		if n := len(step.Changes); n == 0 || n > changesAtOnce {
			t.Fatalf("a step of %d changes", n)
		}
		taken += len(step.Changes)
	}
	if taken != more {
		t.Errorf("%d changes, want %d", taken, more)
	}
}

// What is remembered for watchers is bounded in bytes, too, and the newest
// change is remembered whatever its size.
func TestFeedIsBoundedInBytes(t *testing.T) {
	var f feed
	change := func(i, n int) *GroupChange {
		m := &Member{ID: "m", Meta: []Pair{{"k", strings.Repeat("x", n)}}}
		return &GroupChange{From: uint64(i), Revision: uint64(i + 1), Put: []*Member{m}}
	}
	for i := range feedChanges - 1 {
		f.publish(change(i+1, feedBytes/100), 1, 0)
	}
	if n := len(f.changes); n < 90 || n > 100 {
		t.Errorf("%d changes of a hundredth of the bound are remembered", n)
	}
	f.publish(change(feedChanges, 2*feedBytes), 1, 0)
	if n := len(f.changes); n != 1 {
		t.Errorf("%d changes, want the one that is larger than the bound", n)
	}
	f.publish(change(feedChanges+1, 1), 1, 0)
	if members, bytes := f.changes[0].size(); len(f.changes) != 1 || f.members != members || f.bytes != bytes {
		t.Errorf("%d changes, %d members, %d bytes", len(f.changes), f.members, f.bytes)
	}
}

// All groups together remember no more than some of them might, but what leads
// on from the newest ring.
func TestManyGroupsRememberLessEach(t *testing.T) {
	const last = 2 * feedChanges
	for _, tt := range []struct{ groups, behind, want int }{
		{1, 0, feedChanges}, {2 * feedGroups, 0, feedChanges / 2}, {MaxGroups, 0, feedLeast},
		{MaxGroups, 100, 100}, {MaxGroups, last, feedChanges},
	} {
		var f feed
		for i := range uint64(last) {
			f.publish(&GroupChange{From: i, Revision: i + 1, Removed: []string{"m"}}, tt.groups, i+1-min(i+1, uint64(tt.behind)))
		}
		if n := len(f.changes); n != tt.want {
			t.Errorf("%+v: %d changes are remembered", tt, n)
		}
		if _, ok := f.between(last-uint64(tt.want), last); !ok {
			t.Errorf("%+v: they lead nowhere", tt)
		}
	}
}
