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

// Ring is a group's ring in this process, updated by a watch. Match is local: it
// takes no lock, allocates nothing, and works while no node can be reached. Age says
// how old its answers may be, and WithMaxAge sets a limit.
//
// Every event from a node has the group's fingerprint. If the members here have
// another one, the last ring stays, the whole group is fetched, and the log and
// Stats report it. Builds run beside the watch, each for all changes since the last
// one. Some rings, for 1 % of a processor, are compared with ones built from scratch.
//
// A group whose members all left is an empty ring: ErrEmptyGroup. A deleted group is
// ErrUnknownGroup until it is created again. If the registry lost its data, so that
// the leader does not know the group, the ring stays as it was, ages, and is
// replaced when the group exists again.
type Ring struct {
	c     *Client
	group string
	opts  ringOptions

	view atomic.Pointer[View] // read by Match; never nil

	ctx       context.Context
	cancel    context.CancelFunc
	done      chan struct{} // closed when all goroutines of the ring have ended
	ready     chan struct{} // closed when there is a first state
	refused   chan struct{} // closed when the nodes go on to refuse the token
	wg        sync.WaitGroup
	staleness staleness
	build     *builder
	track     tracker // used by the follower's goroutine, after the start
	refusals  int     // rounds in which the nodes refused the token; likewise

	mu       sync.Mutex     // guards the rest
	latest   *View          // the newest ring, also if it is too old to serve; nil before the first
	missing  bool           // the leader does not know the group
	received uint64         // number of the newest state from the watch
	backlog  backlog        // for the builder
	waiting  map[uint64]int // callers of Wait, by revision
	wake     chan struct{}
	stale    *time.Timer // with a maximum age: fires when it may be exceeded
	err      error
	lastErr  *Error // why no node gave a stream: the most informative
	stats    RingStats
	epoch    int // counts the rebuilds of the cluster
	copied   *diskCopy
	subs     []*subscription
	notice   chan struct{} // one token when subscriptions may need a call
	dirty    chan struct{} // one token when the copy on disk may be out of date
}

// RingStats are the counters of a Ring.
type RingStats struct {
	// Snapshots and Deltas were accepted from the watch.
	Snapshots uint64
	Deltas    uint64
	// Builds are the published rings: fewer than changes, if these come faster than
	// builds.
	Builds uint64
	// Mismatches are states without the fingerprint that the node sent, and rings
	// that differed from ones built from scratch; neither was kept. This program and
	// the node then disagree on the ring, or one of them is broken.
	Mismatches uint64
	// Rebuilds are losses of the cluster's log after which the ring went back.
	Rebuilds uint64
	// DiskErrors are failed writes of the copy on disk.
	DiskErrors uint64
	// FromDisk: the ring is the copy on disk; no node has answered yet.
	FromDisk bool
	// Outages counts the times without news for 5 s and at least three attempts.
	// Outage is the reason of the present one; nil while a node is followed.
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

// WithMaxAge makes Match fail with ErrStale while Age is above d. Nodes confirm a ring
// every two seconds, so d should be a multiple of that.
func WithMaxAge(d time.Duration) RingOption { return func(o *ringOptions) { o.maxAge = d } }

// WithDiskCopy keeps a copy of the ring in a file, and starts with it when no node
// answers. The file is replaced atomically, and a damaged one is refused. Each Ring
// needs a file of its own. A copy sets the client's cluster; one of another cluster
// is not used. To follow a cluster that was formed anew, remove the copy. A ring
// whose members exceed 256 MiB is not copied: that is logged and counted in
// RingStats.DiskErrors.
func WithDiskCopy(path string) RingOption { return func(o *ringOptions) { o.path = path } }

// WithDiskCopyMaxAge refuses a copy that is older than d: since a node last confirmed
// it, by the wall clock, across the restart. Without it there is no limit.
func WithDiskCopyMaxAge(d time.Duration) RingOption {
	return func(o *ringOptions) { o.copyMaxAge = d }
}

// WithBuildShare bounds the share of one processor that builds take under lasting
// change, by elapsed time: 0 < share ≤ 1, 0.4 by default. After a build that took d,
// the next one, of all changes since, begins d × (1/share − 1) later at the earliest;
// at once if Wait or a routing.Owner needs it. A build of 10,000 members at 256
// virtual nodes takes some 20 ms.
func WithBuildShare(share float64) RingOption { return func(o *ringOptions) { o.share = share } }

// Ring makes a local ring of a group. It returns at the first state: the group's
// ring, or that there is no such group, or the copy on disk if no node answers; with
// WithMaxAge, when a node has also confirmed the state. ctx bounds that wait alone,
// 10 s without a deadline; the ring lives until it or the client is closed.
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
		c: c, group: group, opts: o, waiting: map[uint64]int{}, done: make(chan struct{}), ready: make(chan struct{}), refused: make(chan struct{}),
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
	// The copy is used as well when nodes are silent and no attempt has failed yet.
	late := time.AfterFunc(r.opts.copyWait, func() { r.useCopy() })
	defer late.Stop()
	select {
	case <-r.ready:
		return nil
	case <-r.done:
		return r.Err()
	case <-r.refused:
		select {
		case <-r.ready: // by the copy on disk
			return nil
		default:
		}
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &Error{Op: "ring", Code: codes.Unavailable, Message: "no node sent the group " + r.group, cause: ctx.Err()}
	if r.lastErr != nil {
		e.Message += ": " + r.lastErr.Error()
		if r.lastErr.Reason == reasonWrongCluster || tokenRefused(r.lastErr) {
			e.Reason, e.Code = r.lastErr.Reason, r.lastErr.Code
		}
	}
	return e
}

// run follows the group until the ring ends, and waits for what it started.
func (r *Ring) run() {
	f := &follower{
		c: r.c, what: "ring " + r.group, every: r.c.cfg.progress,
		request: r.request, handle: r.handle, progress: r.confirm, failed: r.unreachable, reportOutage: r.setOutage,
	}
	r.wg.Go(r.notifyLoop)
	r.wg.Go(func() { r.build.run(r.ctx) })
	if r.opts.path != "" {
		r.wg.Go(r.copyLoop)
	}
	err := f.run(r.ctx)
	r.cancel()
	r.wg.Wait() // the last copy is written, and no OnChange function or build runs
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

// request resumes from the ring, also from one from disk.
func (r *Ring) request() *registrypb.WatchRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := &r.track; r.copied != nil && r.latest == r.copied.view && !t.hasState() && !t.resync && !t.rebuilt {
		t.revision, t.fingerprint, t.cluster, t.inputs = r.latest.revision, r.latest.fingerprint, r.latest.cluster, r.copied.inputs
	}
	return r.track.request()
}

// handle handles an event of the watch.
func (r *Ring) handle(ctx context.Context, s *session, e *registrypb.WatchEvent) error {
	st, err := r.track.stepOf(ctx, e)
	if err != nil {
		if r.track.report(s, err) {
			r.mu.Lock()
			r.stats.Mismatches++
			r.mu.Unlock()
		}
		return err
	}
	if st != nil {
		r.receive(st)
		r.track.commit(st)
	}
	return nil
}

// confirm records that the newest state of the watch was current at a time. It
// applies to the ring once the ring is of that state.
func (r *Ring) confirm(asOf time.Time) {
	if !r.track.hasIndex() {
		return // no state with an index
	}
	r.mu.Lock()
	received := r.received
	r.mu.Unlock()
	if !r.staleness.confirmState(received, asOf) {
		return
	}
	r.mu.Lock()
	r.stats.FromDisk = false
	r.mu.Unlock()
	r.ageRenewed()
}

// receive gives a step to the builder.
func (r *Ring) receive(st *step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.rebuilt {
		r.epoch++
		r.stats.Rebuilds++
	}
	if st.deleted {
		r.c.cfg.logger.Info("the group was deleted", "group", r.group, "index", st.index)
		r.enqueueLocked(deletedStep(st))
		return
	}
	if st.unknown {
		r.c.cfg.logger.Warn("the cluster does not know the group", "group", r.group, "rebuilt", st.rebuilt)
		r.missing = true
		r.publishLocked()
		return
	}
	if st.reset {
		r.stats.Snapshots++
	} else {
		r.stats.Deltas++
	}
	r.enqueueLocked(st)
}

func (r *Ring) enqueueLocked(st *step) {
	r.received++
	r.backlog.add(st, state{
		number: r.received, revision: st.revision, index: st.index, fingerprint: st.fingerprint,
		cluster: st.cluster, params: st.params, epoch: r.epoch, deleted: st.deleted,
	})
	signal(r.build.work)
	r.expediteLocked()
}

// deletedStep empties the ring at the index of the deletion: a revision above those
// that the group had, and below those that it may have later.
func deletedStep(st *step) *step {
	params := ring.Params{VirtualNodes: ring.DefaultVirtualNodes}
	return &step{
		reset: true, deleted: true, rebuilt: st.rebuilt, revision: st.index, index: st.index, cluster: st.cluster,
		params: params, fingerprint: (&inputs{params: params}).fingerprint(),
	}
}

// setLatestLocked makes a view the newest state.
func (r *Ring) setLatestLocked(v *View) {
	r.latest, r.missing = v, false
	r.publishLocked()
	signal(r.notice)
	signal(r.dirty)
}

// publishLocked publishes the newest state, or why Match fails.
func (r *Ring) publishLocked() {
	v, age := &View{group: r.group}, r.Age()
	if r.latest != nil {
		copied := *r.latest
		v = &copied
	}
	switch {
	case r.err != nil:
		v.refuse = r.err
	case r.latest == nil && r.missing:
		v.refuse = r.refusal(reasonUnknownGroup, "there is no such group")
	case r.latest == nil:
		v.refuse = r.refusal(reasonNotReady, "no state of the group yet")
	case r.tooOld(age):
		v.refuse = r.refusal(reasonStale, "no node has confirmed the ring for "+r.opts.maxAge.String())
	}
	r.view.Store(v)
	r.readyLocked(age)
	close(r.wake)
	r.wake = make(chan struct{})
}

// readyLocked lets Client.Ring return, after a view of that age was published. With
// a maximum age it waits until the age is known, or the first Match would fail.
func (r *Ring) readyLocked(age time.Duration) {
	if r.missing || r.latest != nil && (r.opts.maxAge == 0 || r.stats.FromDisk || age < neverCurrent) {
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

// ageRenewed publishes a ring that is no longer too old, and sets the timer for when
// it may be.
func (r *Ring) ageRenewed() {
	signal(r.dirty)
	if r.opts.maxAge == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checkAgeLocked()
}

func (r *Ring) checkAgeLocked() {
	if r.err != nil || r.latest == nil {
		return
	}
	age := r.Age()
	old := r.tooOld(age)
	if errors.Is(r.view.Load().refuse, ErrStale) != old {
		r.publishLocked()
	}
	r.readyLocked(age) // the view is published by now
	if old || r.opts.maxAge == 0 {
		return // a timer for no age would fire at once, for ever
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

// unreachable records why a node gave no stream. When none does, the copy on disk is
// used.
func (r *Ring) unreachable(err *Error, last bool) {
	r.mu.Lock()
	r.lastErr = moreInformative(r.lastErr, err)
	r.mu.Unlock()
	if !last {
		return
	}
	r.useCopy()
	if tokenRefused(err) {
		if r.refusals++; r.refusals == refusedRounds+1 {
			close(r.refused)
		}
	}
}

// setOutage records why nothing can be followed, and nil when that is over.
func (r *Ring) setOutage(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && r.stats.Outage == nil { // else its reason changed
		r.stats.Outages++
	}
	r.stats.Outage = err
}

// Match returns the member that owns the key, by the newest ring in this process. The
// member belongs to the ring and must not be changed; one that is StateHeld is a copy
// whose Fallback serves the key. Errors are ErrEmptyGroup, ErrUnknownGroup, ErrStale
// and ErrClosed.
func (r *Ring) Match(key string) (*Member, error) { return r.view.Load().Match(key) }

// Serving appends to dst the first n members to ask for the key: its owners, held
// ones last.
func (r *Ring) Serving(dst []Member, key string, n int) ([]Member, error) {
	return r.view.Load().Serving(dst, key, n)
}

// MatchN appends to dst the first n distinct owners of the key, the owner
// first; fewer when fewer members own keys, never none.
func (r *Ring) MatchN(dst []Member, key string, n int) ([]Member, error) {
	return r.view.Load().MatchN(dst, key, n)
}

// MatchBatch appends to dst the owner of each key, all by one ring. The members
// belong to the ring, must not be changed, and have no Fallback.
func (r *Ring) MatchBatch(dst []*Member, keys []string) ([]*Member, error) {
	return r.view.Load().MatchBatch(dst, keys)
}

// View returns the current state of the ring, for several answers from one state.
func (r *Ring) View() *View { return r.view.Load() }

// Group returns the name of the group.
func (r *Ring) Group() string { return r.group }

// Members returns all members of the group, ordered by id, whatever their
// state. The slice must not be changed.
func (r *Ring) Members() []Member { return r.view.Load().members }

// Revision of the ring's group; 0 before the first state.
func (r *Ring) Revision() uint64 { return r.view.Load().revision }

// Fingerprint of the inputs of the ring; 0 before the first state.
func (r *Ring) Fingerprint() uint64 { return r.view.Load().fingerprint }

// Age is the time since a node last confirmed that this ring, or an older one, was of
// the group's newest state: the time since that message arrived, plus the node's own
// lag behind the leader. A received state whose ring is not built yet does not count.
// A copy from disk has its age at the time of writing plus the time since. Before the
// first confirmation Age is the largest duration.
//
// While a node answers, Age is at most about two seconds, the time of two builds, and
// the node's lag. A delayed message counts from its arrival.
func (r *Ring) Age() time.Duration { return ageOf(r.staleness.since()) }

// Stats returns the counters of the ring.
func (r *Ring) Stats() RingStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Done is closed when the ring has ended.
func (r *Ring) Done() <-chan struct{} { return r.done }

// Err is nil while the ring lives, and then why it ended: ErrClosed, or the *Error
// with which a node refused the group's name.
func (r *Ring) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close ends the ring and waits for its goroutines; Match then fails with ErrClosed.
// It must not be called from an OnChange function.
func (r *Ring) Close() error {
	r.cancel()
	<-r.done
	return nil
}

// signal leaves a token in a channel with room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
