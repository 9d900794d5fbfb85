package sdk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// Ring is a group's ring in this process, kept fresh by a watch. Match asks
// nobody: it takes no lock, allocates nothing, and goes on while no node can be
// reached. Age says how old its answers may be, and WithMaxAge sets a limit.
//
// Every event from a node says which fingerprint the group has after it. Where it
// has another here, no ring is built of it: the last one stays, the group is
// fetched as a whole, and the log and Stats tell of it. Rings are built beside the
// watch, one for all changes that came since the last, and now and then, for one
// part in a hundred of a processor's time, one is compared with a ring built anew.
//
// A group that is emptied, member after member, is an empty ring: ErrEmptyGroup.
// One that is deleted is ErrUnknownGroup until it is made again. A registry that lost its data is not: where the leader itself knows of no such
// group any more, the ring goes on as it was, grows older, and is replaced when
// the group exists again.
type Ring struct {
	c     *Client
	group string
	opts  ringOptions

	view atomic.Pointer[View] // what Match reads; never nil

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when everything of the ring has ended
	ready  chan struct{} // closed when there is a first state
	wg     sync.WaitGroup
	fresh  freshness
	build  *builder
	track  tracker // of the follower's goroutine, after the start

	mu      sync.Mutex     // guards the rest
	good    *View          // the newest ring, whether it may be served or not; nil before the first
	missing bool           // the leader knows of no such group
	folded  uint64         // number of the newest state that the watch has brought
	backlog backlog        // what the builder has not taken yet
	waiting map[uint64]int // callers of Wait, by revision
	wake    chan struct{}
	stale   *time.Timer // with a maximum age: looks again when it would be exceeded
	err     error
	lastErr *Error // why no node gave a stream: the most telling
	stats   RingStats
	epoch   int // counts the rebuilds of the cluster
	copied  *diskCopy
	subs    []*subscription
	notice  chan struct{} // one token when subscriptions may have something to be told
	dirty   chan struct{} // one token when the copy on disk may be behind
}

// RingStats counts what happened to a Ring.
type RingStats struct {
	// Snapshots and Deltas were taken over from the watch.
	Snapshots uint64
	Deltas    uint64
	// Builds are the rings that were built and published: fewer than changes,
	// where these come faster than a ring is built.
	Builds uint64
	// Mismatches are states that were thrown away because they had not the
	// fingerprint that the node said, and rings that were not what their members
	// make. They mean that this program and the node disagree on what a ring is
	// made of, or that one of them is broken.
	Mismatches uint64
	// Rebuilds of the cluster that the ring went back for.
	Rebuilds uint64
	// DiskErrors are failures to write the copy on disk.
	DiskErrors uint64
	// FromDisk: the ring is the one of the copy on disk; no node has answered yet.
	FromDisk bool
	// Outages counts the times that the ring got nothing for 5 s, from at least three
	// attempts, and Outage says why at present; nil while a node is followed.
	Outages uint64
	Outage  error
}

// RingOption changes how a Ring works.
type RingOption func(*ringOptions)

type ringOptions struct {
	maxAge     time.Duration
	path       string
	copyMaxAge time.Duration
	copyEvery  time.Duration
	copyWait   time.Duration
	share      float64
	builder    func(*builder) // for tests
}

// WithMaxAge makes Match fail with ErrStale while Age is above d. A node is
// heard of every two seconds, so d should be some multiple of that.
func WithMaxAge(d time.Duration) RingOption { return func(o *ringOptions) { o.maxAge = d } }

// WithDiskCopy keeps a copy of the ring in a file, and starts with it when no
// node answers. It is replaced as a whole, and a damaged one is refused. Each
// Ring needs a file of its own. A copy says which cluster the client is of; one
// of another cluster than the client's is not used. To follow a cluster that was
// formed anew, remove the copy. A ring whose members take more than 256 MiB has no
// copy: that is logged, and counted in RingStats.DiskErrors.
func WithDiskCopy(path string) RingOption { return func(o *ringOptions) { o.path = path } }

// WithDiskCopyMaxAge refuses a copy that is older than d, as Age counts: from
// when a node last said that it was current, by the wall clock, across the
// restart. Without it, any age will do.
func WithDiskCopyMaxAge(d time.Duration) RingOption {
	return func(o *ringOptions) { o.copyMaxAge = d }
}

// WithBuildShare bounds the share of one processor that building the ring takes
// under lasting change, by elapsed time: 0 < share ≤ 1, 0.4 by default. After a
// build that took d, the next begins d × (1/share − 1) later at the earliest, for
// all that came meanwhile; at once where Wait or a routing.Owner waits for it. Of 10,000
// members at 256 virtual nodes, a build takes some 20 ms.
func WithBuildShare(share float64) RingOption { return func(o *ringOptions) { o.share = share } }

// Ring makes a local ring of a group. It returns when there is a first one to
// match with: the group's, or that there is no such group, or the copy on disk if
// no node answers; with WithMaxAge, when a node has also said how fresh it is. ctx
// bounds that wait alone, 10 s without a deadline; the ring lives until it or the
// client is closed.
func (c *Client) Ring(ctx context.Context, group string, opts ...RingOption) (*Ring, error) {
	if err := c.ready("ring", &registrypb.MembersRequest{Group: group}); err != nil {
		return nil, err
	}
	o := ringOptions{copyEvery: 10 * time.Second, copyWait: 2 * c.cfg.attemptTimeout, share: defaultBuildShare}
	for _, opt := range opts {
		opt(&o)
	}
	if o.maxAge < 0 || o.copyMaxAge < 0 {
		return nil, invalid("ring", "max age", "≥ 0", "a maximum age is negative")
	}
	if !(o.share > 0 && o.share <= 1) { // NaN is neither
		return nil, invalid("ring", "build share", "0 < share ≤ 1", fmt.Sprintf("build share %v is not in (0, 1]", o.share))
	}
	r := &Ring{
		c: c, group: group, opts: o, waiting: map[uint64]int{}, done: make(chan struct{}), ready: make(chan struct{}),
		wake: make(chan struct{}), notice: make(chan struct{}, 1), dirty: make(chan struct{}, 1),
		track: tracker{c: c, group: group},
	}
	r.build = newBuilder(r, o.share)
	if o.builder != nil {
		o.builder(r.build)
	}
	r.view.Store(&View{group: group, refuse: r.refusal(reasonNotReady, "no state of the group yet")})
	r.ctx, r.cancel = context.WithCancel(c.ctx)
	copyErr := r.loadCopy()
	if err := c.start(r.run); err != nil {
		r.cancel()
		return nil, err
	}
	if err := r.waitReady(ctx); err != nil {
		_ = r.Close()
		return nil, errors.Join(err, copyErr)
	}
	return r, nil
}

func (r *Ring) waitReady(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.c.cfg.callTimeout)
		defer cancel()
	}
	// A node that is silent does not fail at once.
	late := time.AfterFunc(r.opts.copyWait, func() { r.useCopy() })
	defer late.Stop()
	select {
	case <-r.ready:
		return nil
	case <-r.done:
		return r.Err()
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &Error{Op: "ring", Code: codes.Unavailable, Message: "no node gave the group " + r.group, cause: ctx.Err()}
	if r.lastErr != nil {
		e.Message += ": " + r.lastErr.Error()
		if r.lastErr.Reason == reasonWrongCluster {
			e.Reason, e.Code = r.lastErr.Reason, r.lastErr.Code
		}
	}
	return e
}

// run is the ring's life. Everything that it starts has ended when it returns.
func (r *Ring) run() {
	f := &follower{
		c: r.c, what: "ring " + r.group, every: r.c.cfg.progress,
		request: r.request, take: r.take, progress: r.current, failed: r.unreachable, trouble: r.trouble,
	}
	r.wg.Go(r.notifyLoop)
	r.wg.Go(func() { r.build.run(r.ctx) })
	if r.opts.path != "" {
		r.wg.Go(r.copyLoop)
	}
	err := f.run(r.ctx)
	r.cancel()
	r.wg.Wait() // the last copy is written, no OnChange function and no build runs any more
	if err == nil {
		err = ErrClosed
	}
	r.mu.Lock()
	r.err = err
	if r.stale != nil {
		r.stale.Stop()
	}
	r.publishLocked()
	r.mu.Unlock()
	close(r.done)
}

// request resumes from the ring, that from disk included.
func (r *Ring) request() *registrypb.WatchRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := &r.track; r.copied != nil && r.good == r.copied.view && !t.started() && !t.resync && !t.rebuilt {
		t.revision, t.fingerprint, t.cluster, t.inputs = r.good.revision, r.good.fingerprint, r.good.cluster, r.copied.inputs
	}
	return r.track.request()
}

// take takes an event of the watch over.
func (r *Ring) take(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
	st, err := r.track.take(ctx, e)
	if err != nil {
		if r.track.report(s, err) {
			r.mu.Lock()
			r.stats.Mismatches++
			r.mu.Unlock()
		}
		return err
	}
	if st != nil {
		r.fold(st)
		r.track.commit(st)
	}
	return nil
}

// current notes that the newest state of the watch was current at a time. That
// says something of the ring as soon as it is of that state.
func (r *Ring) current(asOf time.Time) {
	if !r.track.dated() {
		return // no state, or of a cluster that is no more
	}
	r.mu.Lock()
	folded := r.folded
	r.mu.Unlock()
	if !r.fresh.claim(folded, asOf) {
		return
	}
	r.mu.Lock()
	r.stats.FromDisk = false
	r.mu.Unlock()
	r.freshened()
}

// fold hands a step to the builder.
func (r *Ring) fold(st *step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.rebuilt {
		r.epoch++
		r.stats.Rebuilds++
	}
	if st.deleted {
		r.c.cfg.logger.Info("the group was deleted", "group", r.group, "index", st.index)
		r.foldLocked(deletedStep(st))
		return
	}
	if st.unknown {
		r.c.cfg.logger.Warn("the cluster knows of no such group", "group", r.group, "rebuilt", st.rebuilt)
		r.missing = true
		r.publishLocked()
		return
	}
	if st.reset {
		r.stats.Snapshots++
	} else {
		r.stats.Deltas++
	}
	r.foldLocked(st)
}

func (r *Ring) foldLocked(st *step) {
	r.folded++
	r.backlog.add(st, state{
		number: r.folded, revision: st.revision, index: st.index, fingerprint: st.fingerprint,
		cluster: st.cluster, params: st.params, epoch: r.epoch, deleted: st.deleted,
	})
	poke(r.build.work)
	r.expediteLocked()
}

// deletedStep empties the ring at the index up to which the group is known to be
// gone: a revision above those that it had, and below those that it may have again.
func deletedStep(st *step) *step {
	params := ring.Params{VirtualNodes: ring.DefaultVirtualNodes}
	return &step{
		reset: true, deleted: true, rebuilt: st.rebuilt, revision: st.index, index: st.index, cluster: st.cluster,
		params: params, fingerprint: (&inputs{params: params}).fingerprint(),
	}
}

// takeOverLocked makes a view the newest state.
func (r *Ring) takeOverLocked(v *View) {
	r.good, r.missing = v, false
	r.publishLocked()
	poke(r.notice)
	poke(r.dirty)
}

// publishLocked publishes the newest state, or why it is not to be served.
func (r *Ring) publishLocked() {
	v, age := &View{group: r.group}, r.Age()
	if r.good != nil {
		copied := *r.good
		v = &copied
	}
	switch {
	case r.err != nil:
		v.refuse = r.err
	case r.good == nil && r.missing:
		v.refuse = r.refusal(reasonUnknownGroup, "there is no such group")
	case r.good == nil:
		v.refuse = r.refusal(reasonNotReady, "no state of the group yet")
	case r.tooOld(age):
		v.refuse = r.refusal(reasonStale, "no node has said for "+r.opts.maxAge.String()+" that the ring is current")
	}
	r.view.Store(v)
	r.readyLocked(age)
	close(r.wake)
	r.wake = make(chan struct{})
}

// readyLocked lets Client.Ring return, after a view of that age was published. With
// a maximum age it waits until the age is known, or the first Match would find the
// ring too old.
func (r *Ring) readyLocked(age time.Duration) {
	if r.missing || r.good != nil && (r.opts.maxAge == 0 || r.stats.FromDisk || age < neverCurrent) {
		select {
		case <-r.ready:
		default:
			close(r.ready)
		}
	}
}

func (r *Ring) refusal(reason Reason, message string) error { return refusal(r.group, reason, message) }

func refusal(group string, reason Reason, message string) error {
	return &Error{Op: "match", Reason: reason, Code: codes.FailedPrecondition, Message: "ring of " + group + ": " + message}
}

func (r *Ring) tooOld(age time.Duration) bool { return r.opts.maxAge > 0 && age > r.opts.maxAge }

// freshened publishes a ring that was too old and is not any more, and sees to
// it that one that becomes too old is not served.
func (r *Ring) freshened() {
	poke(r.dirty)
	if r.opts.maxAge == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checkAgeLocked()
}

func (r *Ring) checkAgeLocked() {
	if r.err != nil || r.good == nil {
		return
	}
	age := r.Age()
	old := r.tooOld(age)
	if errors.Is(r.view.Load().refuse, ErrStale) != old {
		r.publishLocked()
	}
	r.readyLocked(age) // the view is published by now
	if old {
		return
	}
	left := r.opts.maxAge - age + time.Millisecond
	if r.stale == nil {
		r.stale = time.AfterFunc(left, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.checkAgeLocked()
		})
		return
	}
	r.stale.Reset(left)
}

// unreachable notes why a node gave no stream. When none does, the copy on
// disk has its turn.
func (r *Ring) unreachable(err *Error, last bool) {
	r.mu.Lock()
	r.lastErr = moreTelling(r.lastErr, err)
	r.mu.Unlock()
	if last {
		r.useCopy()
	}
}

// trouble notes why there is nothing to follow; nil: there is.
func (r *Ring) trouble(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && r.stats.Outage == nil { // else its reason changed
		r.stats.Outages++
	}
	r.stats.Outage = err
}

// Match returns the member that owns the key: by the newest ring that this
// process knows. The member is the ring's own, not to be changed; one that is
// StateHeld is a copy whose Fallback names who stands in. Errors are ErrEmptyGroup,
// ErrUnknownGroup, ErrStale and ErrClosed.
func (r *Ring) Match(key string) (*Member, error) { return r.view.Load().Match(key) }

// Serving appends to dst the first n members to ask for the key: its owners,
// those that are not held before those that are.
func (r *Ring) Serving(dst []Member, key string, n int) ([]Member, error) {
	return r.view.Load().Serving(dst, key, n)
}

// MatchN appends to dst the first n distinct owners of the key, the owner
// first; fewer when fewer members own keys, never none.
func (r *Ring) MatchN(dst []Member, key string, n int) ([]Member, error) {
	return r.view.Load().MatchN(dst, key, n)
}

// MatchBatch appends to dst the owner of each key, all by one ring. The members
// are the ring's own: they are not to be changed, and have no Fallback.
func (r *Ring) MatchBatch(dst []*Member, keys []string) ([]*Member, error) {
	return r.view.Load().MatchBatch(dst, keys)
}

// View returns the ring as it is now, for work that needs several answers from
// one ring. The receipt of a View is that of its answers.
func (r *Ring) View() *View { return r.view.Load() }

// Group returns the name of the group.
func (r *Ring) Group() string { return r.group }

// Members returns all members of the group, ordered by id, whatever their
// state. The slice is the ring's own: it is not to be changed.
func (r *Ring) Members() []Member { return r.view.Load().members }

// Revision of the group that the ring is of; 0 without one.
func (r *Ring) Revision() uint64 { return r.view.Load().revision }

// Fingerprint of what the ring was built from; 0 without one.
func (r *Ring) Fingerprint() uint64 { return r.view.Load().fingerprint }

// Age is the time since a node last said that this ring, or an older one, was of
// the group's newest state: since the word came, and what the node said had passed
// since it last heard from the leader. A state that has come and whose ring is not
// built yet does not count. A copy from disk has the age that it had, and the time
// since. Without such a word it is the longest duration there is.
//
// While a node answers, that is at most about two seconds, the time of two builds,
// and what the node itself lags behind. A word that was held up on its way counts
// from its arrival.
func (r *Ring) Age() time.Duration { return ageOf(r.fresh.since()) }

// Stats tells what has happened so far.
func (r *Ring) Stats() RingStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Done is closed when the ring has ended.
func (r *Ring) Done() <-chan struct{} { return r.done }

// Err is nil while the ring lives, and then why it ended: ErrClosed, or the
// *Error with which a node refused the group's name.
func (r *Ring) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close ends the ring: Match fails with ErrClosed, and nothing of the ring runs
// any more when Close returns. Not to be called from an OnChange function.
func (r *Ring) Close() error {
	r.cancel()
	<-r.done
	return nil
}

// poke leaves a token for a loop.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
