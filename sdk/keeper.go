package sdk

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

const (
	// maxBatch is the server's limit on the leases of one message.
	maxBatch = 1000
	// maxInflight bounds the messages that wait for an answer.
	maxInflight = 16
	// maxWorkers bounds the concurrent registrations after losses.
	maxWorkers = 16
	// scanEvery is how often all leases are checked for a missed TTL while no node
	// answers.
	scanEvery = 100 * time.Millisecond

	// followPause limits how often the stream moves to the leader, while nodes
	// disagree on it or it cannot be reached.
	followPause = time.Second

	// refusedRounds is after how many rounds a refused token is reported: nodes may not
	// have applied yet that it was created or rotated.
	refusedRounds = 2

	minAnswerTimeout = 200 * time.Millisecond
	maxAnswerTimeout = 3 * time.Second
)

// keeper renews all leases of a client over one stream. One goroutine, the loop, owns
// every field below events. Other goroutines do what blocks (a stream's sender and
// receiver, the opener, at most maxWorkers registrations) and post functions to the
// loop.
//
// Example: three leases of TTL 9 s registered together are due at 2.5, 2.6 and 2.9 s.
// One message at 2.5 s has all three, and they are due again at the same time, 2.4–3 s
// later. Lease two is answered as lost: it moves from beats to losses, a worker registers
// it again, and its new lease is due 2.4–3 s later. Once that is within 0.6 s of the
// other two, it stays with them.
type keeper struct {
	c          *Client
	dispatcher *dispatcher
	wg         sync.WaitGroup // loop, dispatcher, openers, stream halves, workers
	done       chan struct{}  // closed when the loop has ended and runs no more functions
	events     chan func()

	beats   leaseHeap // phase renewing
	losses  leaseHeap // phase lost
	workers int

	stream  *stream // nil while none is open
	opening *endpoint
	nodes   rotation  // the leader first; since the last answer
	follows time.Time // earliest time to move the stream to the leader
	retryAt time.Time // no stream is opened before
	scanned time.Time
	failed  *Error // of this round, the most informative
	lastErr *Error // why there is no stream: that of the round before, or else failed
}

func startKeeper(c *Client) *keeper {
	k := &keeper{
		c: c, dispatcher: newDispatcher(), done: make(chan struct{}), events: make(chan func()),
		nodes: newRotation(c),
	}
	k.wg.Go(k.dispatcher.run)
	k.wg.Go(k.loop)
	return k
}

// wait waits for the end of the client's context and of the keeper's goroutines.
func (k *keeper) wait() {
	<-k.done
	k.dispatcher.stop()
	k.wg.Wait()
}

// post makes the loop run f; false when the loop has ended.
func (k *keeper) post(f func()) bool {
	select {
	case k.events <- f:
		return true
	case <-k.done:
		return false
	}
}

func (k *keeper) emit(r *Registration, e Event) {
	e.Group, e.ID, e.Time = r.service.Group, r.service.ID, time.Now()
	level := slog.LevelInfo
	if e.Kind == EventLost || e.Kind == EventUnreachable || errors.Is(e.Err, ErrConflict) || errors.Is(e.Err, ErrFenced) {
		level = slog.LevelWarn
	}
	attrs := []any{"event", e.Kind.String(), "group", e.Group, "id", e.ID}
	if e.Err != nil {
		attrs = append(attrs, "error", e.Err)
	}
	k.c.cfg.logger.Log(context.Background(), level, "registration", attrs...)
	if r.service.OnEvent != nil {
		k.dispatcher.emit(r, e)
	}
}

func (k *keeper) loop() {
	defer close(k.done)
	defer func() { k.dropStream() }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-k.c.ctx.Done():
			return
		case f := <-k.events:
			f()
		case <-timer.C:
		}
		k.step(time.Now())
		if at, ok := k.next(); ok {
			timer.Reset(time.Until(at))
		} else {
			timer.Stop()
		}
	}
}

// step does everything that is due.
func (k *keeper) step(now time.Time) {
	if k.stream != nil && k.stream.overdue(now) {
		k.broken(k.stream, errSilent)
	}
	if k.stream != nil && len(k.beats)+len(k.losses)+k.workers == 0 {
		k.dropStream() // the last registration is released
		k.nodes.restart()
	}
	k.openStream(now)
	k.sendDue(now)
	k.registerDue(now)
	k.scan(now)
}

// next returns the time of the next step, if no event comes before.
func (k *keeper) next() (time.Time, bool) {
	var at time.Time
	consider := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if l := k.losses.first(); l != nil && k.workers < maxWorkers {
		consider(l.due)
	}
	if l := k.beats.first(); l != nil {
		switch {
		case k.stream == nil:
			consider(k.scanned.Add(scanEvery))
			if k.opening == nil {
				consider(k.retryAt)
			}
		case len(k.stream.inflight) < maxInflight:
			consider(l.due)
		}
	}
	if k.stream != nil {
		if t, ok := k.stream.deadline(); ok {
			consider(t)
		}
	}
	return at, !at.IsZero()
}

// add adds a registered lease.
func (k *keeper) add(l *lease) {
	if l.phase != renewing {
		return
	}
	if len(k.beats) == 0 {
		k.lastErr = nil // of earlier leases
	}
	k.beats.put(l, l.due)
}

// release removes a lease and waits for its worker.
func (k *keeper) release(l *lease) {
	if k.post(func() { k.remove(l) }) {
		select {
		case <-l.idle:
		case <-k.done:
		}
	}
}

func (k *keeper) remove(l *lease) {
	switch l.phase {
	case renewing:
		k.beats.drop(l)
	case lost:
		k.losses.drop(l)
	case registering: // its worker's context has ended; the worker's result closes idle
		l.phase = released
		return
	case released:
		return
	}
	l.phase = released
	close(l.idle)
}

// lose handles a lost lease: registering again shows the reason.
func (k *keeper) lose(l *lease, now time.Time) {
	k.beats.drop(l)
	l.phase = lost
	k.losses.put(l, now)
	k.emit(l.reg, Event{Kind: EventLost})
}

// registerDue starts workers for the leases to register again.
func (k *keeper) registerDue(now time.Time) {
	for k.workers < maxWorkers {
		l := k.losses.first()
		if l == nil || l.due.After(now) {
			return
		}
		k.losses.drop(l)
		l.phase = registering
		k.workers++
		k.wg.Go(func() {
			ctx, cancel := context.WithTimeout(l.reg.ctx, k.c.cfg.callTimeout)
			defer cancel()
			resp, requested, err := k.c.register(ctx, l.reg.request(false))
			k.post(func() { k.registered(l, resp, requested, err) })
		})
	}
}

// registered handles a worker's result.
func (k *keeper) registered(l *lease, resp *registrypb.RegisterResponse, requested time.Time, err error) {
	k.workers--
	switch {
	case l.phase == released: // closed meanwhile
		close(l.idle)
	case err == nil:
		l.granted(resp, requested)
		l.unreachable = notice{}
		k.beats.put(l, l.due)
		k.emit(l.reg, Event{Kind: EventReregistered})
	case errors.Is(err, ErrConflict), errors.Is(err, ErrFenced):
		l.phase = released
		close(l.idle)
		l.reg.end(err)
	default: // retried without limit: a running service belongs in its group
		l.phase = lost
		k.repeat(l, err)
	}
}

// repeat has a lease registered again after a pause.
func (k *keeper) repeat(l *lease, err error) {
	k.losses.put(l, time.Now().Add(k.c.cfg.backoff(l.tries, tokenRefused(err))))
	l.tries++
	if l.unreachable.due(err) {
		k.emit(l.reg, Event{Kind: EventUnreachable, Err: err})
	}
}

// refuse takes the leases out of the heartbeats that belong to other tokens, and reports
// whether there are any: one of them makes a node refuse a whole heartbeat. Registering
// again shows when the token, or the owner, is another one.
func (k *keeper) refuse(e *Error) (any bool) {
	refused := make(map[uint64]bool, len(e.leases))
	for _, id := range e.leases {
		refused[id] = true
	}
	for _, l := range slices.Clone(k.beats) {
		if refused[l.id] {
			any = true
			k.beats.drop(l)
			l.phase = lost
			k.repeat(l, e)
		}
	}
	return any
}

// scan reports leases that were not renewed for a TTL while no node answers, or sooner
// if the nodes refuse the token. Before
// the first failure a stream is being opened or a heartbeat is in progress, whose
// result comes first: a registration may have taken longer than its TTL.
func (k *keeper) scan(now time.Time) {
	if k.stream != nil && k.stream.answered || now.Sub(k.scanned) < scanEvery {
		return
	}
	k.scanned = now
	if k.lastErr == nil {
		return
	}
	refused := tokenRefused(k.lastErr) && k.nodes.round > refusedRounds
	for _, l := range k.beats {
		if (refused || now.Sub(l.renewed) >= l.ttl) && l.unreachable.due(k.lastErr) {
			k.emit(l.reg, Event{Kind: EventUnreachable, Err: k.lastErr})
		}
	}
}
