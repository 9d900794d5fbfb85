package sdk

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// errSilent: a node did not answer in time.
var errSilent = errors.New("registry: heartbeat not answered in time")

// stream is one open heartbeat stream, owned by the keeper's loop. Two goroutines
// send and receive.
type stream struct {
	ep       *endpoint
	cancel   context.CancelFunc
	out      chan []uint64 // has room for maxInflight, so the loop never blocks
	inflight []batch       // answers come in the order of the requests
	progress time.Time     // of the last answer
	answered bool
}

// batch is a message that waits for its answer.
type batch struct {
	leases  []*lease
	ids     []uint64
	sent    time.Time
	timeout time.Duration // the shortest of its leases
}

// deadline is when the oldest message must be answered.
func (s *stream) deadline() (time.Time, bool) {
	if len(s.inflight) == 0 {
		return time.Time{}, false
	}
	b := s.inflight[0]
	from := b.sent
	if s.progress.After(from) {
		from = s.progress
	}
	return from.Add(b.timeout), true
}

func (s *stream) overdue(now time.Time) bool {
	at, ok := s.deadline()
	return ok && !now.Before(at)
}

// openStream opens a stream if leases need one.
func (k *keeper) openStream(now time.Time) {
	if k.stream != nil || k.opening != nil || len(k.beats) == 0 || now.Before(k.retryAt) {
		return
	}
	ep := k.nodes.next()
	if ep == nil { // all were tried
		k.lastErr, k.failed = k.failed, nil
		k.retryAt = now.Add(k.nodes.nextRound())
		return
	}
	k.open(ep)
}

// open connects in the background. A stream to another node may exist meanwhile.
func (k *keeper) open(ep *endpoint) {
	k.opening = ep
	k.wg.Go(func() {
		s, err := k.dial(ep)
		if !k.post(func() { k.opened(ep, s, err) }) && s != nil {
			s.cancel()
		}
	})
}

// dial opens a stream and starts its two goroutines.
func (k *keeper) dial(ep *endpoint) (*stream, error) {
	conn, err := ep.get(k.c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(k.c.ctx)
	bound := time.AfterFunc(k.c.cfg.attemptTimeout, cancel)
	rpc, err := registrypb.NewRegistryClient(conn).HeartbeatStream(ctx)
	if !bound.Stop() && err == nil {
		err = errSilent
	}
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{ep: ep, cancel: cancel, out: make(chan []uint64, maxInflight)}
	k.wg.Go(func() { s.send(ctx, rpc) })
	k.wg.Go(func() { k.receive(s, rpc) })
	return s, nil
}

// send may block on a node that does not read; cancel ends that. receive reports
// why the stream ended.
func (s *stream) send(ctx context.Context, rpc registrypb.Registry_HeartbeatStreamClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case ids := <-s.out:
			if err := rpc.Send(&registrypb.HeartbeatRequest{LeaseIds: ids}); err != nil {
				return
			}
		}
	}
}

func (k *keeper) receive(s *stream, rpc registrypb.Registry_HeartbeatStreamClient) {
	defer s.cancel()
	for {
		resp, err := rpc.Recv()
		if err != nil {
			k.post(func() { k.broken(s, err) })
			return
		}
		if !k.post(func() { k.answer(s, resp, time.Now()) }) {
			return
		}
	}
}

// opened handles the result of open. The new stream replaces the old one.
func (k *keeper) opened(ep *endpoint, s *stream, err error) {
	k.opening = nil
	if err != nil {
		k.nodeFailed(ep, err, false)
		return
	}
	k.dropStream()
	k.stream = s
}

// broken handles a stream that ended or timed out.
func (k *keeper) broken(s *stream, err error) {
	if s != k.stream {
		return // already dropped
	}
	k.dropStream()
	if e := errorFromStatus("heartbeat", err); len(e.leases) > 0 && k.refuse(e) {
		k.nodes.restart() // the node renews the others
		return
	}
	k.nodeFailed(s.ep, err, s.answered)
}

func (k *keeper) nodeFailed(ep *endpoint, err error, answered bool) {
	e := errorFromStatus("heartbeat", err)
	if errors.Is(err, errSilent) {
		e.Message = ep.addr + " did not answer in time"
	}
	if e.Code == codes.Unknown { // no status: the stream broke
		e.Code = codes.Unavailable
	}
	if k.failed = moreInformative(k.failed, e); k.nodes.round == 0 {
		k.lastErr = k.failed
	}
	k.nodes.failed(ep, e)
	if ep.addr == k.nodes.leader {
		k.follows = time.Now().Add(followPause)
	}
	level := slog.LevelDebug // EventUnreachable reports an outage once
	if answered {
		level = slog.LevelInfo
	}
	k.c.cfg.logger.Log(context.Background(), level, "heartbeats move to another node", "addr", ep.addr, "error", e.Message)
}

// dropStream ends the stream. Leases without an answer are due at once.
func (k *keeper) dropStream() {
	s := k.stream
	if s == nil {
		return
	}
	k.stream = nil
	s.cancel()
	now := time.Now()
	for _, b := range s.inflight {
		for i, l := range b.leases {
			if l.phase == renewing && l.id == b.ids[i] {
				k.beats.put(l, now)
			}
		}
	}
}

// sendDue sends the heartbeats that are due, those first that are due first.
func (k *keeper) sendDue(now time.Time) {
	if k.stream == nil {
		return
	}
	for len(k.stream.inflight) < maxInflight {
		l := k.beats.first()
		if l == nil || l.due.After(now) {
			return
		}
		b := k.collect(now)
		k.stream.inflight = append(k.stream.inflight, b)
		k.stream.out <- b.ids // has room for maxInflight
	}
}

// collect makes one message, with leases that are nearly due, and sets their next due
// times. They have the jitter in common, so that they stay together: a message costs the
// leader more than a hundred leases in it.
func (k *keeper) collect(now time.Time) batch {
	b, less := batch{sent: now, timeout: maxAnswerTimeout}, newJitter()
	for len(b.ids) < maxBatch {
		l := k.beats.first()
		if l == nil || l.due.After(now.Add(l.early())) {
			break
		}
		b.leases, b.ids = append(b.leases, l), append(b.ids, l.id)
		b.timeout = min(b.timeout, l.answerTimeout())
		k.beats.put(l, now.Add(l.interval(less)))
	}
	return b
}

// answer renews the leases of the oldest message, except the lost ones.
func (k *keeper) answer(s *stream, resp *registrypb.HeartbeatResponse, now time.Time) {
	if s != k.stream {
		return // its heartbeats were sent again on another stream
	}
	if len(s.inflight) == 0 {
		k.broken(s, errors.New("registry: answer without a heartbeat"))
		return
	}
	b := s.inflight[0]
	s.inflight[0] = batch{}
	s.inflight, s.progress, s.answered = s.inflight[1:], now, true
	k.failed, k.lastErr = nil, nil
	k.nodes.restart()
	k.c.pool.worked(s.ep, now)
	k.renew(b, resp.GetLost(), now)
	k.follow(resp.GetLeaderAddr(), now)
}

func (k *keeper) renew(b batch, lostIDs []uint64, now time.Time) {
	isLost := make(map[uint64]bool, len(lostIDs))
	for _, id := range lostIDs {
		isLost[id] = true
	}
	for i, l := range b.leases {
		switch {
		case l.phase != renewing || l.id != b.ids[i]: // closed, or registered again meanwhile
		case isLost[l.id]:
			k.lose(l, now)
		default:
			l.renewed = b.sent
			if l.unreachable.given {
				l.unreachable = notice{}
				k.emit(l.reg, Event{Kind: EventRenewed})
			}
		}
	}
}

// follow moves the stream to the leader, which renews leases itself. If the leader
// cannot be reached, the stream stays.
func (k *keeper) follow(leader string, now time.Time) {
	k.nodes.leader = leader
	if leader == "" || leader == k.stream.ep.addr || k.opening != nil || now.Before(k.follows) {
		return
	}
	k.c.pool.add(leader)
	if ep := k.c.pool.healthy(leader, now); ep != nil {
		k.open(ep)
	}
}
