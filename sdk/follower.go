package sdk

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Why a stream ends although its node answers.
var (
	// errBehind: the node has an older state than this client has seen.
	errBehind = errors.New("registry: node is behind an earlier answer")
	// errGap: an event does not follow from the state before.
	errGap = errors.New("registry: event does not follow from the state before")
	// errLagging: the node has not heard from a leader for long.
	errLagging = errors.New("registry: node has lost contact with the leader")
	// errMoving: another node is the preferred one.
	errMoving = errors.New("registry: moving to the preferred node")
)

const (
	// lagLimit is how long a node may be without a leader before its watchers
	// move to another; each of them at most once in lagPause.
	lagLimit = 5 * time.Second
	lagPause = 10 * time.Second
	// settleTime is how long a stream stays on a node that is not the preferred one.
	settleTime = time.Minute
)

// follower keeps one Watch stream open, on one node after the other, until its
// context ends. Its functions are called from one goroutine.
//
// Example: a stream to A is at revision 12. A dies; the follower opens a stream to
// B that resumes after 12, and continues with 13. B hangs: nothing, not even a
// progress, arrives for one and a half intervals, and C is next.
type follower struct {
	c       *Client
	what    string // for the log
	every   time.Duration
	request func() *registrypb.WatchRequest
	// handle takes an event other than a progress; an error ends the stream.
	handle func(ctx context.Context, s *session, e *registrypb.WatchEvent) error
	// progress reports that the state was current at that time.
	progress func(asOf time.Time)
	// failed, if set, reports each node whose stream failed; last is true when all
	// were tried.
	failed func(err *Error, last bool)
	// reportOutage reports why nothing can be followed, and nil when that is over.
	reportOutage func(err error)

	outage outage
}

// session is one open stream.
type session struct {
	ep     *endpoint
	opened time.Time
	events int // handled, without progress
	moveAt time.Time
}

// run follows until ctx ends, or until a node refuses the request as invalid, which
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
		progressed, err := f.session(ctx, ep, nodes.round)
		if ctx.Err() != nil {
			return nil
		}
		e := f.report(&nodes, ep, progressed, err)
		if progressed && !errors.Is(err, errMismatch) { // one group among many may cause it again at once
			nodes.restart()
			nodes.tried[ep] = !errors.Is(err, errGap) // after a gap the same node may send a snapshot
		}
		if e.Reason == reasonInvalidArgument {
			return e
		}
		if f.failed != nil {
			f.failed(e, nodes.exhausted())
		}
		if !errors.Is(err, errMoving) && f.outage.fail(e, time.Now(), f.c.cfg.outageAfter) {
			e = f.outage.err
			f.c.cfg.logger.Warn("no node serves the watch", "watch", f.what, "addr", ep.addr, "error", e)
			f.reportOutage(e)
		}
	}
}

// report reports the end of a session to the pool and the log.
func (f *follower) report(nodes *rotation, ep *endpoint, progressed bool, err error) *Error {
	e := errorFromStatus("watch", err)
	if errors.Is(err, errMoving) {
		return e
	}
	if errors.Is(err, errLagging) || errors.Is(err, errSilent) {
		e.Code = codes.Unavailable
	}
	if !errors.Is(err, ErrClosed) { // ErrClosed: the pool dropped the endpoint
		nodes.failed(ep, e)
	}
	if e.Code == codes.Unknown {
		e.Code, e.Message = codes.Unavailable, err.Error()
	}
	level := slog.LevelDebug // an outage is logged once
	if progressed {
		level = slog.LevelInfo
	}
	f.c.cfg.logger.Log(context.Background(), level, "watch moves to another node", "watch", f.what, "addr", ep.addr, "error", err)
	return e
}

// session follows one node until its stream ends. progressed is true if an event
// was accepted.
func (f *follower) session(ctx context.Context, ep *endpoint, round int) (progressed bool, err error) {
	conn, err := ep.get(f.c)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req := f.request()
	req.ProgressInterval, req.Pieces = durationpb.New(f.every), true
	timeout := f.c.cfg.attemptTimeout << min(round, 5)
	if req.Revision != 0 { // a resumed stream may have no event for an interval
		timeout += f.every * 3 / 2
	}
	silent := time.AfterFunc(timeout, func() { cancel(errSilent) })
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
			return progressed, streamError(ctx, err)
		}
		silent.Stop()
		f.c.pool.worked(ep, time.Now())
		if e, err = pieces.add(e); e.GetProgress() != nil {
			err = f.onProgress(s, e.GetProgress())
			progressed = progressed || err == nil
		} else if e != nil && err == nil {
			if err = f.handle(ctx, s, e); err == nil {
				progressed = true
				s.events++
			}
		}
		if err != nil {
			return progressed, err
		}
		silent.Reset(f.every*3/2 + f.c.cfg.attemptTimeout)
	}
}

func (f *follower) onProgress(s *session, p *registrypb.Progress) error {
	now, lag := time.Now(), max(p.GetLag().AsDuration(), 0)
	f.progress(now.Add(-lag))
	if f.outage.end() {
		f.reportOutage(nil)
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

// streamError returns errSilent if that ended the stream, and else err.
func streamError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return cause
	}
	return err
}
