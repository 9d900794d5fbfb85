package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/werbenhu/registry/ring"
)

// withGrow replaces how the ring's builder makes a ring of the one before.
func withGrow(f func(*ring.Ring, ring.Params, []ring.Member) (*ring.Ring, error)) RingOption {
	return func(o *ringOptions) { o.builder = func(b *builder) { b.extend = f } }
}

// gated is a ring whose builds wait until the gate is closed, but for the first.
func gated(t *testing.T, cl *fakeCluster, opts ...RingOption) (r *Ring, open func()) {
	gate := make(chan struct{})
	open = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	r, err := cl.client(cl.target(), fastProgress).Ring(testContext(t), "g", append(opts, withGrow(func(prev *ring.Ring, p ring.Params, ms []ring.Member) (*ring.Ring, error) {
		<-gate
		return prev.With(p, ms)
	}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { open(); _ = r.Close() })
	return r, open
}

// received waits until the watch of the ring has brought so many states.
func received(t *testing.T, r *Ring, n uint64) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " states have come"), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.received >= n
	})
}

// What has come and is not built yet makes the ring no younger, and a limit on
// the age holds against a builder that takes long.
func TestAgeCountsThePublishedRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(3)...)
		r, open := gated(t, cl, WithMaxAge(100*time.Millisecond))
		eventually(t, "the first ring is fresh", func() bool { _, err := r.Match("k"); return err == nil })
		last := cl.write("g", memberIDs(4)...)
		received(t, r, 2)
		asOf := r.staleness.since()
		eventually(t, "the node says that this is its newest state", func() bool {
			r.staleness.mu.Lock()
			defer r.staleness.mu.Unlock()
			return len(r.staleness.pending) > 0 || r.staleness.asOf != asOf
		})
		if r.staleness.since() != asOf {
			t.Fatal("what a node said of a state without a ring counts for the ring before")
		}
		eventually(t, "the ring is too old", func() bool { _, err := r.Match("k"); return errors.Is(err, ErrStale) })
		if r.staleness.since() != asOf || r.Age() < 100*time.Millisecond {
			t.Errorf("age %v", r.Age())
		}
		open()
		wait(t, r, last)
		eventually(t, "the new ring is fresh", func() bool { _, err := r.Match("k"); return err == nil })
	})
}

// A claim that the next ring reaches is not lost to a newer one.
func TestClaimsOfFreshness(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	f := &staleness{}
	since := func(want time.Time) {
		t.Helper()
		if got := f.since(); !got.Equal(want) {
			t.Errorf("current as of %v, want %v", got.Sub(start), want.Sub(start))
		}
	}
	f.reached(1)
	if !f.confirmState(1, at(1)) {
		t.Error("a state that is shown is confirmed at once")
	}
	since(at(1))
	if f.confirmState(2, at(2)) || f.confirmState(2, at(3)) || f.confirmState(4, at(4)) || f.confirmState(5, at(5)) {
		t.Error("a state that is not shown is confirmed")
	}
	since(at(1))
	if !f.reached(3) {
		t.Error("no claim was waiting")
	}
	since(at(3))
	f.reached(5)
	since(at(5))
	for i := range 100 {
		f.confirmState(uint64(10+i), at(10+i))
	}
	if len(f.pending) > maxConfirmations {
		t.Errorf("%d confirmations", len(f.pending))
	}
	f.reached(10)
	since(at(10))
	f.reached(109)
	since(at(109))
}

// While a ring is built all that comes is gathered, and built at once.
func TestBuilderTakesTheNewestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(3)...)
		r, open := gated(t, cl)
		seen := followViews(t, cl, r)
		var last uint64
		for i := range 300 {
			last = cl.write("g", append(memberIDs(3), member(fmt.Sprint("other-", i), 1))...)
		}
		received(t, r, 301)
		r.mu.Lock()
		n := len(r.backlog.changes)
		r.mu.Unlock()
		if n > 8 {
			t.Errorf("%d changes of a group of four are held", n)
		}
		if r.Revision() == last {
			t.Error("the ring was built")
		}
		open()
		wait(t, r, last)
		seen()
		if s := r.Stats(); s.Builds > 3 || s.Deltas != 300 {
			t.Errorf("%+v", s)
		}
	})
}

// What a backlog leaves is what the steps leave one by one, and it has no more
// entries than there are members before and after.
func TestBacklogOfRandomSteps(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	in, err := inputsOf(fakeParams, nil)
	if err != nil {
		t.Fatal(err)
	}
	var base, now []Member
	var b backlog
	for n := range 3000 {
		s := &step{params: fakeParams, revision: uint64(n + 1), reset: rnd.IntN(50) == 0}
		for _, i := range rnd.Perm(20)[:rnd.IntN(4)] {
			s.put = append(s.put, Member{ID: fmt.Sprint("m-", i), Weight: 1, ModifiedIndex: uint64(n)})
		}
		for _, i := range rnd.Perm(20)[:rnd.IntN(4)] {
			s.removed = append(s.removed, fmt.Sprint("m-", i))
		}
		slices.SortFunc(s.put, byID)
		if s.reset {
			s.removed = nil
			if in, err = inputsOf(fakeParams, s.put); err != nil {
				t.Fatal(err)
			}
		} else if err := in.fold(s); err != nil {
			t.Fatal(err)
		}
		now = s.after(now)
		b.add(s, state{number: uint64(n + 1)})
		if b.reset {
			base = b.whole
		}
		ids := map[string]bool{}
		for _, m := range append(slices.Clone(base), now...) {
			ids[m.ID] = true
		}
		if len(b.changes) > len(ids) {
			t.Fatalf("%d changes of %d ids", len(b.changes), len(ids))
		}
		if diff := cmp.Diff(now, b.after(base), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		if rnd.IntN(10) == 0 {
			base, b = now, backlog{}
		}
	}
}

// A build waits for its share of the processor, and not while somebody waits for
// what it builds.
func TestBuildShare(t *testing.T) {
	cl := newFakeWatched(t, 1)
	cl.write("g", memberIDs(3)...)
	c := cl.client(cl.target(), fastProgress)
	r := openRing(t, c, WithBuildShare(1e-12)) // the pause is longer than any test
	for range 3 {
		last := cl.write("g", memberIDs(3+int(r.Stats().Builds))...)
		received(t, r, r.Stats().Builds+1)
		ctx, cancel := context.WithCancel(t.Context())
		later := make(chan error)
		go func() { later <- r.Wait(ctx, last+1000) }()
		eventually(t, "somebody waits", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.waiting) == 1
		})
		if r.expedited() || !r.pending() {
			t.Error("built without a pause for one who waits for something else")
		}
		wait(t, r, last)
		cancel()
		if err := <-later; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	for _, share := range []float64{0, -1, 1.1, math.NaN(), math.Inf(1)} {
		var e *Error
		if _, err := c.Ring(t.Context(), "g", WithBuildShare(share)); !errors.As(err, &e) || e.Field != "build share" || e.Limit == "" {
			t.Errorf("share %v: %v", share, err)
		}
	}
	for _, tt := range []struct {
		worked time.Duration
		share  float64
		want   time.Duration
	}{{20 * time.Millisecond, 0.4, 30 * time.Millisecond}, {time.Second, 1, 0}, {time.Second, 1e-300, 1 << 62}} {
		if got := pauseAfter(tt.worked, tt.share); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// A ring that grew wrong is found by the next check, and replaced.
func TestRingThatGrewWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(8)...)
		var log bytes.Buffer
		c := cl.client(cl.target(), fastProgress, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		r, err := c.Ring(testContext(t), "g", withGrow(func(_ *ring.Ring, p ring.Params, ms []ring.Member) (*ring.Ring, error) {
			wrong := slices.Clone(ms)
			wrong[0].Weight = 3
			return ring.New(p, wrong)
		}))
		if err != nil {
			t.Fatal(err)
		}
		last := cl.write("g", memberIDs(9)...)
		right := fakeRing(cl.newest("g").members)
		eventually(t, "the ring is as it should be", func() bool {
			v := r.View()
			return v.Revision() == last && v.Ring().Digest() == right.Digest()
		})
		if s := r.Stats(); s.Mismatches != 1 {
			t.Errorf("%+v", s)
		}
		_ = r.Close()
		if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "differs from one built from scratch") {
			t.Errorf("log: %s", log.String())
		}
	})
}

// Checks come by turns: never in the way of what is to be built, but for one in a
// thousand builds, and after a pause of a hundred times what the last one took.
func TestChecksByTurns(t *testing.T) {
	r := &Ring{}
	b := newBuilder(r, 1)
	now := time.Now()
	for _, tt := range []struct {
		name       string
		extended   bool
		pending    uint64
		unverified int
		at         time.Time
		want       bool
	}{
		{"idle", true, 0, 1, now, true},
		{"nothing grew", false, 0, 1, now, false},
		{"more is to be built", true, 1, verifyBuilds - 1, now, false},
		{"more is to be built, after many builds", true, 1, verifyBuilds, now, true},
		{"too early", true, 0, verifyBuilds, now.Add(time.Nanosecond), false},
	} {
		b.extended, b.unverified, b.verifyAt, r.backlog.number = tt.extended, tt.unverified, tt.at, tt.pending
		if got := b.verifyDue(now); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
	v := benchView(t, 50)
	b.ring, b.scratch = v.ring, ringMembers(v.members)
	began := time.Now()
	b.verify(v)
	took := time.Since(began)
	if pause := time.Until(b.verifyAt); pause <= 0 || b.extended || b.unverified != 0 {
		t.Errorf("the next check comes %v after one of %v", pause, took)
	}
}

// A ring from disk that the watch goes on from is what the builder goes on from.
func TestBuilderGoesOnFromADiskCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Ring{group: "g"}
		v := benchView(t, 20)
		r.latest = v
		b := newBuilder(r, 1)
		r.backlog.add(&step{params: v.params, removed: []string{"webserver-000003"}, left: []string{"webserver-000003"}}, state{number: 1, params: v.params})
		next := r.takeBacklog(b)
		if ms := next.after(b.members); len(ms) != 19 || slices.ContainsFunc(ms, func(m Member) bool { return m.ID == "webserver-000003" }) {
			t.Errorf("%d members", len(ms))
		}
	})
}
