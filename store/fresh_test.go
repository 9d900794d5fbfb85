package store

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

const freshTimeout = 500 * time.Millisecond

// follow lets virtual time pass in which a node hears from its leader and looks.
func follow(f *freshness, d time.Duration) {
	for range int(d / (freshTimeout / 10)) {
		after(freshTimeout / 10)
		f.look(false, 0, time.Now())
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
		f := newFreshness(freshTimeout)
		after(time.Second)
		f.look(false, 0, time.Time{})
		wantLag(t, "before any contact", f.lag(false, time.Time{}), time.Second)
		f.confirmed(f.Now())
		follow(f, time.Second)
		last := time.Now()
		after(freshTimeout / 5)
		wantLag(t, "after a contact", f.lag(false, last), freshTimeout/5)
	})
}

// What comes after a gap may have waited for as long: it says nothing.
func TestLagAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFreshness(freshTimeout)
		follow(f, time.Second)
		for range 40 { // the network stands still; the process does not
			after(freshTimeout / 10)
			f.look(false, 0, f.start.Add(time.Second))
		}
		gap := 4 * freshTimeout
		wantLag(t, "in the gap", f.lag(false, f.start.Add(time.Second)), gap)
		wantLag(t, "with the first word after it, at once", f.lag(false, time.Now()), gap)
		if !f.look(false, 0, time.Now()) {
			t.Error("no doubt after a gap")
		}
		wantLag(t, "with the first word after it", f.lag(false, time.Now()), gap)
		at := f.Now()
		after(freshTimeout / 10)
		f.confirmed(at)
		follow(f, freshTimeout)
		wantLag(t, "confirmed", f.lag(false, time.Now()), 0)
	})
}

// After the process stood still even the time of a contact is of no use: raft
// takes the words that waited before anyone notices.
func TestLagAfterAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFreshness(10 * time.Second) // so that no gap shows
		follow(f, time.Second)
		after(6 * time.Second)
		wantLag(t, "at once", f.lag(false, time.Now()), 6*time.Second)
		if !f.look(false, 0, time.Now()) {
			t.Error("no doubt after a stall")
		}
		wantLag(t, "noticed", f.lag(false, time.Now()), 6*time.Second)
	})
}

func TestLagOfALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFreshness(freshTimeout)
		voters := []raft.Server{{ID: "a"}, {ID: "b"}, {ID: "c"}}
		look := func() { f.look(true, f.quorum("a", voters, f.Now()), time.Time{}) }
		after(time.Second)
		look()
		wantLag(t, "before anyone answered", f.lag(true, time.Time{}), time.Second)
		f.Acked("b", f.Now())
		look()
		wantLag(t, "one of two others answers", f.lag(true, time.Time{}), 0)
		after(freshTimeout - 1)
		look()
		wantLag(t, "within the timeout", f.lag(true, time.Time{}), 0)
		after(1)
		wantLag(t, "after the timeout", f.lag(true, time.Time{}), freshTimeout)
		f.Acked("c", f.Now()-int64(freshTimeout)/2) // sent before it was answered
		look()
		wantLag(t, "the other one answered", f.lag(true, time.Time{}), 0)
		after(freshTimeout / 2)
		wantLag(t, "counted from when it was sent", f.lag(true, time.Time{}), freshTimeout)
		wantLag(t, "deposed", f.lag(false, time.Time{}), freshTimeout)
	})
}

func TestQuorumContact(t *testing.T) {
	f := newFreshness(freshTimeout)
	for i, id := range []raft.ServerID{"b", "c", "d", "e"} {
		f.Acked(id, int64(10*(i+1)))
	}
	f.Acked("e", 5) // an answer that came late
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
