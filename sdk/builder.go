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
	// checkShare is what comparing rings with rings built anew may take.
	checkShare = 0.01
	// checkBuilds is after how many builds a check goes before what is pending.
	checkBuilds = 1000
)

// builder makes the rings of a Ring in a goroutine of its own. It takes the newest
// state that the watch has brought, not one after the other, so it is behind by
// one build at most, and between builds it rests, so that all of them stay within
// a share of one processor.
//
// Example: under 40 changes a second, of which each build takes 20 ms, it builds
// every 50 ms at a share of 0.4, for two changes at a time.
type builder struct {
	r     *Ring
	share float64
	grow  func(prev *ring.Ring, p ring.Params, ms []ring.Member) (*ring.Ring, error) // prev.With; replaced by tests

	work     chan struct{} // one token when there is a backlog
	expedite chan struct{} // one token when somebody waits for what is in it

	// Of the builder's goroutine.
	members []Member
	ring    *ring.Ring
	scratch []ring.Member // reused: a ring keeps none of it
	next    time.Time     // when the next build may begin

	grown    bool      // the ring grew by changes since it was built anew
	unproven int       // builds since the last check
	checkAt  time.Time // when the next check may begin
}

func newBuilder(r *Ring, share float64) *builder {
	return &builder{r: r, share: share, grow: (*ring.Ring).With, work: make(chan struct{}, 1), expedite: make(chan struct{}, 1)}
}

// run builds until ctx ends.
func (b *builder) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.work:
		}
		if !b.rest(ctx) {
			return
		}
		began := time.Now()
		v := b.build()
		now := time.Now()
		b.next = now.Add(restAfter(now.Sub(began), b.share))
		if v != nil && b.checkDue(now) {
			b.check(v)
		}
	}
}

// restAfter is how long to do nothing after some work, so that it takes a share
// of the time.
func restAfter(worked time.Duration, share float64) time.Duration {
	return time.Duration(min(float64(worked)*(1/share-1), math.MaxInt64/2))
}

// rest waits until the next build may begin, or somebody waits for it. It reports
// false when ctx ended.
func (b *builder) rest(ctx context.Context) bool {
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
	if err != nil { // not of inputs that were checked
		b.r.failed(&next, err)
		return nil
	}
	b.ring = made
	b.unproven++
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
	b.grown = true
	return b.grow(b.ring, p, b.scratch)
}

// checkDue tells whether the ring is to be compared with one built anew.
func (b *builder) checkDue(now time.Time) bool {
	return b.grown && !now.Before(b.checkAt) && (b.unproven >= checkBuilds || !b.r.pending())
}

// check compares the points of a ring that grew by changes with those of one built
// anew, which takes its place if they differ. The pause after it counts all the
// processors that building may use.
func (b *builder) check(v *View) {
	began := time.Now()
	anew, err := ring.New(v.ring.Params(), b.scratch)
	if err == nil && anew.Digest() != v.ring.Digest() {
		b.ring = anew
		b.r.correct(v, anew)
	}
	b.grown, b.unproven = false, 0
	now := time.Now()
	b.checkAt = now.Add(restAfter(now.Sub(began)*time.Duration(min(runtime.GOMAXPROCS(0), 8)), checkShare))
}

// takeBacklog returns what is to be built, and nothing if there is nothing new.
func (r *Ring) takeBacklog(b *builder) backlog {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.ring == nil && r.good != nil { // from disk: the watch goes on from it
		b.members, b.ring = r.good.members, r.good.ring
	}
	next := r.backlog
	r.backlog = backlog{}
	return next
}

// pending tells whether there is something to build.
func (r *Ring) pending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.backlog.number != 0
}

// publish makes a view the one to match with. Claims of freshness that waited for
// it are good from now on.
func (r *Ring) publish(v *View) {
	r.mu.Lock()
	r.stats.Builds++
	r.stats.FromDisk = false
	r.takeOverLocked(v)
	r.mu.Unlock()
	if r.fresh.reached(v.number) {
		r.freshened()
	}
}

// failed counts a state that cannot be built. The ring stays as it was.
func (r *Ring) failed(next *backlog, err error) {
	r.c.cfg.logger.Error("a state of the group makes no ring", "group", r.group, "revision", next.revision, "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Mismatches++
}

// correct replaces a ring that is not what its members make.
func (r *Ring) correct(v *View, anew *ring.Ring) {
	r.c.cfg.logger.Error("a ring that grew by changes differs from one built anew, which takes its place",
		"group", r.group, "revision", v.revision, "grown", v.ring.Digest(), "anew", anew.Digest())
	right := newView(r.group, v.state, v.members, anew)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Mismatches++
	r.takeOverLocked(right)
}
