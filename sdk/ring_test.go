package sdk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

func openRing(t *testing.T, c *Client, opts ...RingOption) *Ring {
	t.Helper()
	r, err := c.Ring(testContext(t), "g", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func wait(t *testing.T, r *Ring, revision uint64) {
	t.Helper()
	if err := r.Wait(testContext(t), revision); err != nil {
		t.Fatalf("the ring is at %d, waiting for %d: %v", r.Revision(), revision, err)
	}
}

// owned follows RingChanges by their ranges alone, at many places of the circle.
type owned struct {
	t *testing.T

	mu    sync.Mutex
	at    []uint64
	owner []string
	last  uint64
	calls int
}

func newOwned(t *testing.T) *owned {
	o := &owned{t: t}
	for i := range 500 {
		o.at = append(o.at, ring.Hash(fmt.Sprint("key-", i)))
		o.owner = append(o.owner, "")
	}
	return o
}

func (o *owned) on(c RingChange) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls++
	if c.From != o.last {
		o.t.Errorf("change %d → %d after %d", c.From, c.To, o.last)
	}
	o.last = c.To
	for i, h := range o.at {
		for _, r := range c.Moved {
			if r.Contains(h) {
				if r.From != o.owner[i] {
					o.t.Errorf("%d → %d: [%x, %x) moved from %q, it was at %q", c.From, c.To, r.Lo, r.Hi, r.From, o.owner[i])
				}
				o.owner[i] = r.To
			}
		}
	}
}

// is compares the changes with a ring.
func (o *owned) is(r *ring.Ring) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, h := range o.at {
		want := ""
		if m := r.OwnerOf(h); m >= 0 {
			want = r.Member(m).ID
		}
		if o.owner[i] != want {
			return fmt.Errorf("the moved ranges leave %x with %q, the ring gives it to %q", h, o.owner[i], want)
		}
	}
	return nil
}

func (o *owned) reached(revision uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last == revision
}

// Whatever nodes do, a ring shows states of the history only, in their order,
// and ends with the newest; the changes of its watchers add up to it.
func TestRingFollowsARandomHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		cl := newFakeWatched(t, 3)
		live := map[string]int{}
		write := func() uint64 {
			id := fmt.Sprintf("m-%d", rnd.IntN(12))
			if live[id] > 0 && rnd.IntN(2) == 0 {
				delete(live, id)
			} else {
				live[id] = 1 + rnd.IntN(4)
			}
			var ms []*registrypb.Member
			for id, w := range live {
				m := member(id, w)
				m.State = registrypb.MemberState(rnd.IntN(3))
				ms = append(ms, m)
			}
			return cl.write("g", ms...)
		}
		write()
		c := cl.client(cl.target(), fastProgress)
		r := openRing(t, c)
		moved := newOwned(t)
		moved.on(RingChange{To: r.Revision(), Moved: ring.Diff(mustRing(nil), r.View().Ring())})
		r.OnChange(moved.on)
		seen := followViews(t, cl, r)

		var last uint64
		for range 400 {
			switch n := cl.nodes[rnd.IntN(3)]; rnd.IntN(20) {
			case 0:
				n.breakStreams()
			case 1:
				n.pin("g")
				n.breakStreams()
			case 2:
				n.unpin()
			case 3:
				cl.mu.Lock()
				cl.histories["g"].forgot = len(cl.histories["g"].versions) - 1
				cl.mu.Unlock()
			case 4: // one wrong event
				once := sync.Once{}
				n.mu.Lock()
				n.alter = func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
					once.Do(func() { spoil(e) })
					return e
				}
				n.mu.Unlock()
			default:
				last = write()
				if rnd.IntN(2) == 0 {
					for _, n := range cl.nodes {
						n.unpin()
					}
					wait(t, r, last)
				}
			}
		}
		for _, n := range cl.nodes {
			n.unpin()
		}
		last = write()
		wait(t, r, last)
		seen()
		want := cl.newest("g")
		if r.Fingerprint() != want.fingerprint || len(r.Members()) != len(want.members) {
			t.Errorf("ring %016x of %d members, want %016x of %d", r.Fingerprint(), len(r.Members()), want.fingerprint, len(want.members))
		}
		eventually(t, "the last change is reported", func() bool { return moved.reached(last) })
		if err := moved.is(r.View().Ring()); err != nil {
			t.Error(err)
		}
		t.Logf("%+v, %d changes reported", r.Stats(), moved.calls)
	})
}

func spoil(e *registrypb.WatchEvent) {
	if d := e.GetDelta(); d != nil {
		d.Fingerprint++
	}
	if s := e.GetSnapshot(); s != nil {
		s.Fingerprint ^= 1 << 63
	}
}

func mustRing(ms []ring.Member) *ring.Ring {
	r, err := ring.New(fakeParams, ms)
	if err != nil {
		panic(err)
	}
	return r
}

// followViews checks every view that r publishes against the history. The
// function that it returns ends it.
func followViews(t *testing.T, cl *fakeCluster, r *Ring) func() {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var last uint64
		for {
			r.mu.Lock()
			wake := r.wake
			r.mu.Unlock()
			v := r.View()
			if v.Revision() < last {
				t.Errorf("the ring went back from %d to %d", last, v.Revision())
			}
			last = v.Revision()
			if err := cl.check(v); err != nil {
				t.Error(err)
			}
			select {
			case <-wake:
			case <-stop:
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-done
	}
}

func (cl *fakeCluster) check(v *View) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	for _, h := range cl.histories["g"].versions {
		if h.revision == v.Revision() {
			if h.fingerprint != v.Fingerprint() || v.Ring().Fingerprint() != h.fingerprint || len(h.members) != len(v.Members()) {
				return fmt.Errorf("revision %d has ring %016x of %d members, served is %016x of %d",
					h.revision, h.fingerprint, len(h.members), v.Fingerprint(), len(v.Members()))
			}
			return nil
		}
	}
	return fmt.Errorf("served revision %d is none of the history", v.Revision())
}

func TestRingMatchesAsThePackageRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(10)...)
		r := openRing(t, cl.client(cl.target(), fastProgress))
		bare := fakeRing(cl.newest("g").members)
		keys := make([]string, 1000)
		for i := range keys {
			keys[i] = fmt.Sprint("user-id-", i)
		}
		batch, err := r.MatchBatch(nil, keys)
		if err != nil || len(batch) != len(keys) {
			t.Fatal(len(batch), err)
		}
		for i, key := range keys {
			want := bare.Member(bare.Match(key)).ID
			one, err := r.Match(key)
			three, err3 := r.MatchN(nil, key, 3)
			if err != nil || err3 != nil || one.ID != want || batch[i].ID != want || three[0].ID != want || len(three) != 3 || one.Addr != want+":80" {
				t.Fatalf("%s: %v %v %v %v, want %s", key, one, batch[i], three, errors.Join(err, err3), want)
			}
		}
		if _, err := r.MatchN(nil, "k", 0); !errors.Is(err, ErrInvalidArgument) {
			t.Error(err)
		}
		out := make([]*Member, 0, len(keys))
		for name, f := range map[string]func(){
			"Match":      func() { _, _ = r.Match("user-id-1") },
			"MatchBatch": func() { _, _ = r.MatchBatch(out, keys) },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%s allocates %v times", name, n)
			}
		}
	})
}

// An empty ring is what the log says; an unknown group is none.
func TestRingOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		c := cl.client(cl.target(), fastProgress)
		r := openRing(t, c)
		if _, err := r.Match("k"); !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("before the group exists: %v", err)
		}
		if r.Members() != nil || r.Revision() != 0 || r.View().Err() == nil {
			t.Error("an unknown group has members")
		}
		wait(t, r, cl.write("g", memberIDs(2)...))
		if _, err := r.Match("k"); err != nil {
			t.Error(err)
		}
		var before *View
		changes := make(chan RingChange, 1)
		r.OnChange(func(c RingChange) { changes <- c })
		wait(t, r, cl.write("g"))
		if _, err := r.Match("k"); !errors.Is(err, ErrEmptyGroup) {
			t.Errorf("after the group was emptied: %v", err)
		}
		change := <-changes
		before = change.Before
		if m, err := before.Match("k"); err != nil || m.ID == "" {
			t.Error(m, err)
		}
		if _, err := change.After.Match("k"); !errors.Is(err, ErrEmptyGroup) {
			t.Error(err)
		}
		if _, err := r.MatchBatch(nil, []string{"k"}); !errors.Is(err, ErrEmptyGroup) {
			t.Error(err)
		}
		if _, err := r.MatchN(nil, "k", 2); !errors.Is(err, ErrEmptyGroup) {
			t.Error(err)
		}
	})
}

// A node that is behind, or knows nothing yet, takes nothing back.
func TestRingIsNotTakenBack(t *testing.T) {
	for name, pin := range map[string]func(cl *fakeCluster){
		"node is behind":        func(cl *fakeCluster) { cl.nodes[1].pin("g"); cl.write("g", memberIDs(5)...) },
		"node knows no group":   func(cl *fakeCluster) { cl.nodes[1].pinned = map[string]int{"g": 0} },
		"node has another ring": func(cl *fakeCluster) { cl.nodes[1].alter = cl.otherRing; cl.histories["g"].forgot = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeWatched(t, 3)
				cl.write("g", memberIDs(4)...)
				pin(cl)
				c := cl.client(cl.target(), fastProgress)
				r := openRing(t, c)
				last := cl.newest("g")
				wait(t, r, last.revision)
				stop := followViews(t, cl, r)
				cl.nodes[0].srv.Stop()
				cl.nodes[2].srv.Stop()
				asked := cl.nodes[1].count("Watch")
				eventually(t, "the other node is asked", func() bool { return cl.nodes[1].count("Watch") > asked+3 })
				if r.Revision() != last.revision || r.Fingerprint() != last.fingerprint {
					t.Errorf("went to %d", r.Revision())
				}
				if _, err := r.Match("k"); err != nil {
					t.Error(err)
				}
				stop()
			})
		})
	}
}

// otherRing makes a resume a snapshot of the same revision with another ring.
func (cl *fakeCluster) otherRing(_ *registrypb.WatchEvent) *registrypb.WatchEvent {
	other := fakeVersion{revision: 103, members: memberIDs(2)}
	other.fingerprint = fakeRing(other.members).Fingerprint()
	return &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: cl.snapshotOf("g", other)}}
}

// A cluster that lost its log is followed, with a word; the ring does not go
// empty in between.
func TestRingOfARebuiltCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		c := cl.client(cl.target(), fastProgress, WithAttemptTimeout(50*time.Millisecond))
		r := openRing(t, c)
		changes := make(chan RingChange, 8)
		r.OnChange(func(c RingChange) { changes <- c })
		before := r.Fingerprint()
		cl.rebuild(10)
		cl.nodes[0].breakStreams()
		cl.nodes[1].breakStreams()
		eventually(t, "the rebuild is noticed", func() bool { return r.Stats().Rebuilds == 1 })
		if _, err := r.Match("k"); err != nil || r.Fingerprint() != before {
			t.Errorf("a registry without data took the ring away: %v", err)
		}
		cl.mu.Lock()
		cl.writeAtLocked("g", 12, memberIDs(3))
		cl.mu.Unlock()
		got := <-changes
		if !got.Rebuilt || got.To != 12 || r.Revision() != 12 || len(r.Members()) != 3 {
			t.Errorf("%+v", got)
		}
		wait(t, r, 12)
		cl.mu.Lock() // from an older snapshot: the group exists and is older
		cl.histories, cl.index = nil, 8
		cl.writeAtLocked("g", 7, memberIDs(2))
		cl.mu.Unlock()
		cl.nodes[0].breakStreams()
		cl.nodes[1].breakStreams()
		if got = <-changes; !got.Rebuilt || got.From != 12 || got.To != 7 || len(r.Members()) != 2 {
			t.Errorf("%+v", got)
		}
	})
}

// A ring that is not the node's is never served, and fetched again.
func TestRingThrowsAwayWhatDoesNotFit(t *testing.T) {
	for name, faults := range map[string]int{"one event": 1, "all events of a node": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeWatched(t, 2)
				cl.write("g", memberIDs(4)...)
				r := openRing(t, cl.client(cl.target(), fastProgress))
				stop := followViews(t, cl, r)
				var left atomic.Int64
				left.Store(int64(faults))
				cl.nodes[0].mu.Lock()
				cl.nodes[0].alter = func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
					if left.Add(-1) >= 0 {
						spoil(e)
					}
					return e
				}
				cl.nodes[0].mu.Unlock()
				for n := range 10 {
					wait(t, r, cl.write("g", memberIDs(5+n)...))
				}
				stop()
				if n := r.Stats().Mismatches; n == 0 {
					t.Error("no mismatch was counted")
				}
			})
		})
	}
}

func TestRingGoesOnWithoutAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		c := cl.client(cl.target(), fastProgress)
		r := openRing(t, c, WithMaxAge(400*time.Millisecond))
		lasting := openRing(t, c)
		if _, err := r.Match("k"); err != nil { // at once, without waiting for a progress
			t.Fatal(err)
		}
		if r.Age() > 300*time.Millisecond {
			t.Errorf("age %v at the start", r.Age())
		}
		want, _ := r.Match("k")
		for _, n := range cl.nodes {
			n.srv.Stop()
		}
		eventually(t, "the ring is too old", func() bool { _, err := r.Match("k"); return errors.Is(err, ErrStale) })
		if age := r.Age(); age < 400*time.Millisecond {
			t.Errorf("refused at age %v", age)
		}
		if _, err := r.MatchBatch(nil, []string{"k"}); !errors.Is(err, ErrStale) {
			t.Error(err)
		}
		if got, err := lasting.Match("k"); err != nil || got.ID != want.ID {
			t.Errorf("without a limit: %v, %v", got, err)
		}
		for i, n := range cl.nodes {
			cl.nodes[i] = cl.start(n.id, n.addr)
		}
		eventually(t, "the ring is fresh", func() bool { _, err := r.Match("k"); return err == nil })
		wait(t, r, cl.write("g", memberIDs(5)...))
	})
}

// The age has in it what the node lags behind.
func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(1)...)
		n := cl.nodes[0]
		n.lag = time.Hour
		r := openRing(t, cl.client(cl.target(), fastProgress))
		eventually(t, "the node has said how fresh it is", func() bool { return r.Age() < neverCurrent })
		if age := r.Age(); age < time.Hour || age > time.Hour+time.Minute {
			t.Errorf("age %v behind a node that lags an hour", age)
		}
		old := openRing(t, cl.client(cl.target(), fastProgress), WithMaxAge(time.Minute))
		if _, err := old.Match("k"); !errors.Is(err, ErrStale) {
			t.Errorf("a ring that is too old from the start: %v", err)
		}
		w, err := cl.client(cl.target(), fastProgress).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		if w.Age() < time.Hour {
			t.Errorf("age %v of a watch", w.Age())
		}
		n.mu.Lock()
		n.lag = 0
		n.mu.Unlock()
		eventually(t, "a progress renews the age", func() bool { return r.Age() < time.Second && w.Age() < time.Second && old.View().Err() == nil })
	})
}

func TestSlowOnChangeIsToldTheSum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(3)...)
		r := openRing(t, cl.client(cl.target(), fastProgress))
		moved := newOwned(t)
		moved.on(RingChange{To: r.Revision(), Moved: ring.Diff(mustRing(nil), r.View().Ring())})
		gate := make(chan struct{})
		stop := r.OnChange(func(c RingChange) { <-gate; moved.on(c) })
		var last uint64
		for i := range 100 {
			last = cl.write("g", memberIDs(1+i*7%20)...)
		}
		wait(t, r, last) // although no function was called
		close(gate)
		eventually(t, "the last change is reported", func() bool { return moved.reached(last) })
		if moved.calls > 4 {
			t.Errorf("called %d times", moved.calls)
		}
		if err := moved.is(r.View().Ring()); err != nil {
			t.Error(err)
		}
		stop()
		wait(t, r, cl.write("g", memberIDs(9)...))
		if !moved.reached(last) {
			t.Error("called after stop")
		}
	})
}

func TestRingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(3)...)
		c := cl.client(cl.target(), fastProgress)
		r, other := openRing(t, c), openRing(t, c)
		if err := r.Close(); err != nil || !errors.Is(r.Err(), ErrClosed) {
			t.Error(err, r.Err())
		}
		if _, err := r.Match("k"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if err := r.Wait(t.Context(), 1<<40); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if other.Err() != nil {
			t.Error("the other ring ended too")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-other.Done()
		if _, err := other.Match("k"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := c.Ring(t.Context(), "g"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

func TestRingWithoutANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.nodes[0].srv.Stop()
		c := cl.client(cl.target(), fastProgress, WithCallTimeout(100*time.Millisecond))
		if _, err := c.Ring(t.Context(), "g"); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if _, err := c.Ring(t.Context(), "\xff"); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%v", err)
		}
	})
}

// A node that takes streams and says nothing is given up.
func TestSilentStreamIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(3)...)
		c := cl.client(cl.target(), fastProgress)
		r := openRing(t, c)
		cl.nodes[0].mu.Lock()
		cl.nodes[0].mute = true
		cl.nodes[0].mu.Unlock()
		cl.nodes[0].pin("g")
		wait(t, r, cl.write("g", memberIDs(4)...))
	})
}
