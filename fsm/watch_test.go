package fsm

import (
	"bytes"
	"context"
	"testing"
	"time"
)

// A watcher of a group goes on when a snapshot replaces the state, and is told
// of what the snapshot holds.
func TestWatchGoesOnAfterARestore(t *testing.T) {
	l := newLog(t)
	l.must(register(newSeat("web", "a", "10.0.0.1:80", "one")))
	settle(t, l.m)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w := l.m.WatchGroup("web", 0, 0)
	if step, err := w.Next(ctx); err != nil || step.View == nil || step.View.Ring.Len() != 1 {
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
		if step, err := w.Next(ctx); err == nil {
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
	f.publish(&RingChange{Revision: 12})
	f.publish(&RingChange{From: 12, Revision: 15})
	f.publish(&RingChange{From: 15, Revision: 16})
	for from, want := range map[uint64]int{12: 2, 15: 1, 16: 0} {
		if changes, _, ok := f.after(from); !ok || len(changes) != want {
			t.Errorf("after %d: %d changes, %t, want %d", from, len(changes), ok, want)
		}
	}
	if _, _, ok := f.after(14); ok {
		t.Error("a way was found from a revision that was never published")
	}
	_, wake, _ := f.after(16)
	f.publish(&RingChange{From: 20, Revision: 21}) // a gap: nothing leads over it
	select {
	case <-wake:
	default:
		t.Error("not woken")
	}
	if _, _, ok := f.after(16); ok {
		t.Error("a way was found over a gap")
	}
	for i := range uint64(2 * feedChanges) {
		f.publish(&RingChange{From: 21 + i, Revision: 22 + i})
	}
	if len(f.changes) > feedChanges {
		t.Errorf("%d changes are remembered, at most %d", len(f.changes), feedChanges)
	}
}
