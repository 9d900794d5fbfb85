package store

import (
	"context"
	"fmt"
	"sync"
)

// indexAsker asks one leader for confirmed indexes. A caller waits for a request that is
// sent after its call; one request serves all callers that wait for it, and at most one is
// under way.
type indexAsker struct {
	leader Target
	ctx    context.Context // of the store
	ask    func(context.Context, Target) (uint64, error)

	mu     sync.Mutex // guards the rest, and the callers of requests
	asking bool
	next   *indexRequest // not sent yet; nil: no caller waits
}

type indexRequest struct {
	ctx     context.Context // ends when no caller waits
	cancel  context.CancelFunc
	callers int
	done    chan struct{}
	index   uint64 // set before done is closed, like err
	err     error
}

// wait returns an index that the leader confirmed after the call.
func (a *indexAsker) wait(ctx context.Context) (uint64, error) {
	a.mu.Lock()
	r := a.next
	if r == nil {
		r = &indexRequest{done: make(chan struct{})}
		r.ctx, r.cancel = context.WithCancel(a.ctx)
		a.next = r
		if !a.asking {
			a.asking = true
			go a.loop()
		}
	}
	r.callers++
	a.mu.Unlock()
	select {
	case <-r.done:
		return r.index, r.err
	case <-ctx.Done():
		a.leave(r)
		return 0, fmt.Errorf("ask the leader for an index: %w", context.Cause(ctx))
	}
}

// leave ends the wait of one caller, and with the last one the request.
func (a *indexAsker) leave(r *indexRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.callers--; r.callers > 0 {
		return
	}
	r.cancel()
	if a.next == r {
		a.next = nil
	}
}

// loop sends requests until no caller waits for one.
func (a *indexAsker) loop() {
	for {
		a.mu.Lock()
		r := a.next
		a.next = nil
		a.asking = r != nil
		a.mu.Unlock()
		if r == nil {
			return
		}
		r.index, r.err = a.ask(r.ctx, a.leader)
		r.cancel()
		close(r.done)
	}
}

// askLeader returns an index that the leader confirmed after the call. A request to an
// earlier leader delays nobody.
func (s *Store) askLeader(ctx context.Context, leader Target) (uint64, error) {
	a := s.asker.Load()
	if a == nil || a.leader != leader {
		a = &indexAsker{leader: leader, ctx: s.ctx, ask: s.cfg.Peers.ReadIndex}
		s.asker.Store(a)
	}
	return a.wait(ctx)
}
