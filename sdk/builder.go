package sdk

import (
	"context"
	"math"
	"runtime"
	"time"

	"github.com/werbenhu/registry/ring"
)

const (
	// defaultBuildShare leaves most of one processor to the program itself.
	defaultBuildShare = 0.4
	// verifyShare is the share of one processor for comparisons with rebuilt rings.
	verifyShare = 0.01
	// verifyBuilds is the number of builds after which a check precedes the backlog.
	verifyBuilds = 1000
)

// builder builds the rings of a Ring in a goroutine of its own. It always builds the
// newest state, so it is behind by one build at most, and pauses between builds to
// stay within a share of one processor.
//
// Example: with 40 changes a second, builds of 20 ms and a share of 0.4, it builds
// every 50 ms, two changes at a time.
type builder struct {
	r      *Ring
	share  float64
	extend func(prev *ring.Ring, p ring.Params, ms []ring.Member) (*ring.Ring, error) // prev.With; replaced by tests

	work     chan struct{} // one token when there is a backlog
	expedite chan struct{} // one token when a Wait needs it built

	// Used by the builder's goroutine alone.
	members []Member
	ring    *ring.Ring
	scratch []ring.Member // reused: a ring keeps none of it
	next    time.Time     // when the next build may begin

	extended   bool      // the ring was updated since it was built from scratch
	unverified int       // builds since the last check
	verifyAt   time.Time // when the next check may begin
}

func newBuilder(r *Ring, share float64) *builder {
	return &builder{r: r, share: share, extend: (*ring.Ring).With, work: make(chan struct{}, 1), expedite: make(chan struct{}, 1)}
}

// run builds until ctx ends.
func (b *builder) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.work:
		}
		if !b.waitTurn(ctx) {
			return
		}
		began := time.Now()
		v := b.build()
		now := time.Now()
		b.next = now.Add(pauseAfter(now.Sub(began), b.share))
		if v != nil && b.verifyDue(now) {
			b.verify(v)
		}
	}
}

// pauseAfter is the pause after some work that keeps it within a share of the time.
func pauseAfter(worked time.Duration, share float64) time.Duration {
	return time.Duration(min(float64(worked)*(1/share-1), math.MaxInt64/2))
}

// waitTurn waits until the next build may begin, or a Wait needs it. It reports false
// when ctx ended.
func (b *builder) waitTurn(ctx context.Context) bool {
	left := time.Until(b.next)
	if left <= 0 {
		return true
	}
	t := time.NewTimer(left)
	defer t.Stop()
	for !b.r.expedited() {
		select {
		case <-t.C:
			return true
		case <-b.expedite:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// build makes the ring of the newest state and publishes it. It returns nil if
// there is none.
func (b *builder) build() *View {
	next := b.r.takeBacklog(b)
	if next.number == 0 {
		return nil
	}
	b.members = next.after(b.members)
	made, err := b.ringOf(next.params)
	if err != nil { // cannot happen: the inputs were checked
		b.r.failed(&next, err)
		return nil
	}
	b.ring = made
	b.unverified++
	v := newView(b.r.group, next.state, b.members, made)
	b.r.publish(v)
	return v
}

func (b *builder) ringOf(p ring.Params) (*ring.Ring, error) {
	b.scratch = b.scratch[:0]
	for i := range b.members {
		b.scratch = append(b.scratch, ringMember(&b.members[i]))
	}
	if b.ring == nil {
		return ring.New(p, b.scratch)
	}
	b.extended = true
	return b.extend(b.ring, p, b.scratch)
}

// verifyDue reports whether to compare the ring with one built from scratch.
func (b *builder) verifyDue(now time.Time) bool {
	return b.extended && !now.Before(b.verifyAt) && (b.unverified >= verifyBuilds || !b.r.pending())
}

// verify compares the points of an updated ring with those of one built from scratch,
// which replaces it if they differ. The pause after it counts all processors that a
// build may use.
func (b *builder) verify(v *View) {
	began := time.Now()
	rebuilt, err := ring.New(v.ring.Params(), b.scratch)
	if err == nil && rebuilt.Digest() != v.ring.Digest() {
		b.ring = rebuilt
		b.r.correct(v, rebuilt)
	}
	b.extended, b.unverified = false, 0
	now := time.Now()
	b.verifyAt = now.Add(pauseAfter(now.Sub(began)*time.Duration(min(runtime.GOMAXPROCS(0), 8)), verifyShare))
}

// takeBacklog returns the backlog and empties it.
func (r *Ring) takeBacklog(b *builder) backlog {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.ring == nil && r.latest != nil { // from disk: the watch resumes from it
		b.members, b.ring = r.latest.members, r.latest.ring
	}
	next := r.backlog
	r.backlog = backlog{}
	return next
}

// pending reports whether there is a backlog.
func (r *Ring) pending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.backlog.number != 0
}

// publish makes a view the one that Match uses. Confirmations that waited for it
// apply from now on.
func (r *Ring) publish(v *View) {
	r.mu.Lock()
	r.stats.Builds++
	r.stats.FromDisk = false
	r.setLatestLocked(v)
	r.mu.Unlock()
	if r.staleness.reached(v.number) {
		r.ageRenewed()
	}
}

// failed counts a state that cannot be built. The ring is unchanged.
func (r *Ring) failed(next *backlog, err error) {
	r.c.cfg.logger.Error("the ring of a state of the group cannot be built", "group", r.group, "revision", next.revision, "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Mismatches++
}

// correct replaces a ring with wrong points.
func (r *Ring) correct(v *View, rebuilt *ring.Ring) {
	r.c.cfg.logger.Error("an updated ring differs from one built from scratch, which replaces it",
		"group", r.group, "revision", v.revision, "updated", v.ring.Digest(), "rebuilt", rebuilt.Digest())
	right := newView(r.group, v.state, v.members, rebuilt)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Mismatches++
	r.setLatestLocked(right)
}
