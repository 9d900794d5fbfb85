package store

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

const stalenessTimeout = 500 * time.Millisecond

// follow lets virtual time pass with regular contacts.
func follow(f *staleness, d time.Duration) {
	for range int(d / (stalenessTimeout / 10)) {
		after(stalenessTimeout / 10)
		f.observe(false, 0, time.Now())
	}
}

func wantLag(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got != want {
		t.Errorf("%s: lag is %s, want %s", what, got, want)
	}
}

func TestLagOfAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newStaleness(stalenessTimeout)
		after(time.Second)
		f.observe(false, 0, time.Time{})
		wantLag(t, "before any contact", f.lag(false, time.Time{}), time.Second)
		f.confirmed(f.Now())
		follow(f, time.Second)
		last := time.Now()
		after(stalenessTimeout / 5)
		wantLag(t, "after a contact", f.lag(false, last), stalenessTimeout/5)
	})
}

// A message after a gap may have waited as long as the gap: it is no valid contact.
func TestLagAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newStaleness(stalenessTimeout)
		follow(f, time.Second)
		for range 40 { // the network pauses, the process does not
			after(stalenessTimeout / 10)
			f.observe(false, 0, f.start.Add(time.Second))
		}
		gap := 4 * stalenessTimeout
		wantLag(t, "in the gap", f.lag(false, f.start.Add(time.Second)), gap)
		wantLag(t, "at the first message after it, not yet observed", f.lag(false, time.Now()), gap)
		if !f.observe(false, 0, time.Now()) {
			t.Error("confirmed after a gap")
		}
		wantLag(t, "at the first message after it", f.lag(false, time.Now()), gap)
		at := f.Now()
		after(stalenessTimeout / 10)
		f.confirmed(at)
		follow(f, stalenessTimeout)
		wantLag(t, "confirmed", f.lag(false, time.Now()), 0)
	})
}

// After a pause of the process even the time of a contact is not valid: raft
// processes the messages that waited before the loop runs.
func TestLagAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newStaleness(10 * time.Second) // so that no gap shows
		follow(f, time.Second)
		after(6 * time.Second)
		wantLag(t, "not yet observed", f.lag(false, time.Now()), 6*time.Second)
		if !f.observe(false, 0, time.Now()) {
			t.Error("confirmed after a pause")
		}
		wantLag(t, "observed", f.lag(false, time.Now()), 6*time.Second)
	})
}

func TestLagOfALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newStaleness(stalenessTimeout)
		voters := []raft.Server{{ID: "a"}, {ID: "b"}, {ID: "c"}}
		observe := func() { f.observe(true, f.quorum("a", voters, f.Now()), time.Time{}) }
		after(time.Second)
		observe()
		wantLag(t, "before anyone answered", f.lag(true, time.Time{}), time.Second)
		f.Acked("b", f.Now())
		observe()
		wantLag(t, "one of two others answers", f.lag(true, time.Time{}), 0)
		after(stalenessTimeout - 1)
		observe()
		wantLag(t, "within the timeout", f.lag(true, time.Time{}), 0)
		after(1)
		wantLag(t, "after the timeout", f.lag(true, time.Time{}), stalenessTimeout)
		f.Acked("c", f.Now()-int64(stalenessTimeout)/2) // sent before it was answered
		observe()
		wantLag(t, "the other one answered", f.lag(true, time.Time{}), 0)
		after(stalenessTimeout / 2)
		wantLag(t, "counted from when it was sent", f.lag(true, time.Time{}), stalenessTimeout)
		wantLag(t, "deposed", f.lag(false, time.Time{}), stalenessTimeout)
	})
}

func TestQuorumContact(t *testing.T) {
	f := newStaleness(stalenessTimeout)
	for i, id := range []raft.ServerID{"b", "c", "d", "e"} {
		f.Acked(id, int64(10*(i+1)))
	}
	f.Acked("e", 5) // a late answer
	for want, voters := range map[int64][]raft.Server{
		100: {{ID: "a"}},
		10:  {{ID: "a"}, {ID: "b"}},
		20:  {{ID: "a"}, {ID: "b"}, {ID: "c"}},
		30:  {{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}, {ID: "e"}},
		0:   {{ID: "x"}, {ID: "y"}, {ID: "a"}},
	} {
		if got := f.quorum("a", voters, 100); got != want {
			t.Errorf("of %v: %d, want %d", voters, got, want)
		}
	}
}
