package sdk

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Why a stream is given up although its node answers.
var (
	// errBehind: the node is at an older state than this client has seen.
	errBehind = errors.New("registry: node is behind what was seen before")
	// errGap: an event does not lead on from the state before.
	errGap = errors.New("registry: event does not follow from the one before")
	// errLagging: the node has not heard from a leader for long.
	errLagging = errors.New("registry: node has lost touch with the cluster")
	// errMoving: another node is the preferred one.
	errMoving = errors.New("registry: moving to the preferred node")
)

const (
	// lagLimit is how long a node may be without a leader before its watchers
	// look for another; each of them at most once in lagPause.
	lagLimit = 5 * time.Second
	lagPause = 10 * time.Second
	// settleTime is how long a stream stays on a node that is not the preferred.
	settleTime = time.Minute
)

// follower keeps one Watch stream open, on one node after the other, until its
// context ends. Its functions are called from one goroutine.
//
// Example: a stream to A at revision 12. A dies; the follower opens a stream to
// B, which asks for what comes after 12, and goes on with 13. B stops without a
// word: nothing, not even a progress, arrives for two intervals, and C is next.
type follower struct {
	c       *Client
	what    string // for the log
	every   time.Duration
	request func() *registrypb.WatchRequest
	// take handles an event that is no progress; an error ends the stream.
	take func(ctx context.Context, s *session, e *registrypb.WatchEvent) error
	// progress is told that the state was current at that time.
	progress func(asOf time.Time)
	// failed, when set, is told of every node that did not give a stream, and
	// with last after all were tried.
	failed func(err *Error, last bool)
	// trouble is told why there is nothing to follow, once for an outage, and with
	// nil that it is over.
	trouble func(err error)

	outage outage
}

// session is one open stream.
type session struct {
	ep     *endpoint
	opened time.Time
	events int // taken, progress not counted
	moveAt time.Time
}

// run follows until ctx ends, or until a node refuses what is asked for, which
// is the error.
func (f *follower) run(ctx context.Context) error {
	nodes := newRotation(f.c)
	for {
		ep := nodes.next()
		if ep == nil {
			if !f.c.pause(ctx, nodes.nextRound()) {
				return nil
			}
			continue
		}
		heard, err := f.session(ctx, ep, nodes.round)
		if ctx.Err() != nil {
			return nil
		}
		e := f.judge(&nodes, ep, heard, err)
		if heard && !errors.Is(err, errMismatch) { // which may come again at once, of one group among many
			nodes.restart()
			nodes.tried[ep] = !errors.Is(err, errGap) // whose snapshot is as good as any
		}
		if e.Reason == reasonInvalidArgument {
			return e
		}
		if f.failed != nil {
			f.failed(e, nodes.exhausted())
		}
		if !errors.Is(err, errMoving) && f.outage.fail(e, time.Now(), f.c.cfg.troubleAfter) {
			e = f.outage.err
			f.c.cfg.logger.Warn("no node gives the watch what it follows", "watch", f.what, "addr", ep.addr, "error", e)
			f.trouble(e)
		}
	}
}

// judge tells the pool how a node did.
func (f *follower) judge(nodes *rotation, ep *endpoint, heard bool, err error) *Error {
	e := errorFromStatus("watch", err)
	if errors.Is(err, errMoving) {
		return e
	}
	if errors.Is(err, errLagging) || errors.Is(err, errSilent) {
		e.Code = codes.Unavailable
	}
	if !errors.Is(err, ErrClosed) { // else the endpoint was dropped from the pool
		nodes.failed(ep, e)
	}
	if e.Code == codes.Unknown {
		e.Code, e.Message = codes.Unavailable, err.Error()
	}
	level := slog.LevelDebug // an outage is told once
	if heard {
		level = slog.LevelInfo
	}
	f.c.cfg.logger.Log(context.Background(), level, "watch goes to another node", "watch", f.what, "addr", ep.addr, "error", err)
	return e
}

// session follows one node until its stream ends. heard is true when it sent
// something that was of use.
func (f *follower) session(ctx context.Context, ep *endpoint, round int) (heard bool, err error) {
	conn, err := ep.get(f.c)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req := f.request()
	req.ProgressInterval, req.Pieces = durationpb.New(f.every), true
	patience := f.c.cfg.attemptTimeout << min(round, 5)
	if req.Revision != 0 { // a stream that resumes may have nothing to say for an interval
		patience += f.every * 3 / 2
	}
	silent := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer silent.Stop()
	stream, err := registrypb.NewRegistryClient(conn).Watch(ctx, req)
	if err != nil {
		return false, streamError(ctx, err)
	}
	now := time.Now()
	s := &session{ep: ep, opened: now, moveAt: now.Add(settleTime + rand.N(settleTime))}
	var pieces assembly
	for {
		e, err := stream.Recv()
		if err != nil {
			return heard, streamError(ctx, err)
		}
		silent.Stop()
		f.c.pool.worked(ep, time.Now())
		if e, err = pieces.add(e); e.GetProgress() != nil {
			err = f.onProgress(s, e.GetProgress())
			heard = heard || err == nil
		} else if e != nil && err == nil {
			if err = f.take(ctx, s, e); err == nil {
				heard = true
				s.events++
			}
		}
		if err != nil {
			return heard, err
		}
		silent.Reset(f.every*3/2 + f.c.cfg.attemptTimeout)
	}
}

func (f *follower) onProgress(s *session, p *registrypb.Progress) error {
	now, lag := time.Now(), max(p.GetLag().AsDuration(), 0)
	f.progress(now.Add(-lag))
	if f.outage.end() {
		f.trouble(nil)
	}
	switch {
	case lag > lagLimit && now.Sub(s.opened) > lagPause:
		return errLagging
	case now.After(s.moveAt) && lag < lagLimit:
		s.moveAt = now.Add(settleTime + rand.N(settleTime))
		if f.c.pool.preferred(now) != s.ep {
			return errMoving
		}
	}
	return nil
}

// streamError returns why a stream's context was ended, where it was.
func streamError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return cause
	}
	return err
}

// freshness is since when what is shown of a followed state is known to have been
// current.
//
// A node says so of all that it has sent. Where something is made of that before it
// is shown, a ring for instance, the claim waits until that is shown.
//
// Example: state 7 is shown when 8 comes, and with it the claim that it was current
// at 12:00:00. While the ring of 8 is built, 9 comes, current at 12:00:02. When 8
// is shown, that is as of 12:00:00; when 9 is, as of 12:00:02.
type freshness struct {
	mu     sync.Mutex // guards the rest
	asOf   time.Time
	shown  uint64  // number of the state
	claims []claim // not shown yet, in their order
}

type claim struct {
	number uint64
	asOf   time.Time
}

// maxClaims bounds the claims that wait; beyond, the newest replaces the one
// before, since the next state that is shown may be as old as the first.
const maxClaims = 16

// confirm notes that what is shown was current at a time.
func (f *freshness) confirm(asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirmLocked(asOf)
}

func (f *freshness) confirmLocked(asOf time.Time) {
	if asOf.After(f.asOf) {
		f.asOf = asOf
	}
}

// claim notes that the state of that number was current at a time. It reports
// true if that state is shown already.
func (f *freshness) claim(number uint64, asOf time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if number <= f.shown {
		f.confirmLocked(asOf)
		return true
	}
	if n := len(f.claims); n == maxClaims || n > 0 && f.claims[n-1].number == number {
		f.claims = f.claims[:n-1]
	}
	f.claims = append(f.claims, claim{number, asOf})
	return false
}

// reached notes that the state of that number is shown. It reports true if
// claims were waiting for that.
func (f *freshness) reached(number uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown = number
	n := 0
	for n < len(f.claims) && f.claims[n].number <= number {
		f.confirmLocked(f.claims[n].asOf)
		n++
	}
	f.claims = f.claims[n:]
	return n > 0
}

func (f *freshness) since() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asOf
}

// ageOf is by the monotonic clock, or by the wall clock where that says more: a
// monotonic clock may stand still while the machine sleeps, and a copy on disk
// has none.
func ageOf(asOf time.Time) time.Duration {
	if asOf.IsZero() {
		return neverCurrent
	}
	now := time.Now()
	return max(now.Sub(asOf), now.Round(0).Sub(asOf.Round(0)), 0)
}

// neverCurrent is the age of a state that no node has yet said to be current.
const neverCurrent = time.Duration(1<<63 - 1)
