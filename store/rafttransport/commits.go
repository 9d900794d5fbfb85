package rafttransport

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// commitFeed announces a new commit index to the followers at once. raft itself sends
// it with the next entries or, without any, 50 to 100 ms later (CommitTimeout). For
// that long a watch, a linearizable read, or a read of one's own write on a follower
// would wait. A shorter CommitTimeout would cost an idle cluster messages all the
// time; this costs one message per commit that no entries follow.
//
// Example: entry 12 was sent with commit index 11. A quorum answers, raft applies
// entry 12, and each pipeline repeats its last request, without entries and with
// commit index 12.
type commitFeed struct {
	node *atomic.Pointer[Node] // nil until raft runs
	// written is the last entry that this node wrote to its log.
	written atomic.Uint64

	mu        sync.Mutex // guards pipelines
	pipelines map[*commitPipeline]struct{}
}

func newCommitFeed(node *atomic.Pointer[Node]) *commitFeed {
	return &commitFeed{node: node, pipelines: make(map[*commitPipeline]struct{})}
}

// advanced wakes the pipelines after the commit index has advanced. It does not block.
func (f *commitFeed) advanced() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.pipelines {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// committedIn returns the commit index if it is from that term or an older one. The
// order of the reads matters: a node updates its term before it takes a newer
// leader's commit index, so if the term is unchanged after the index was read, the
// index is not from a newer leader. A newer leader's commit index must not go to a
// follower that has not heard of that leader: it may have other entries there.
func (f *commitFeed) committedIn(term uint64) (uint64, bool) {
	s := f.node.Load()
	if s == nil {
		return 0, false
	}
	index := (*s).CommitIndex()
	return index, (*s).CurrentTerm() == term
}

// follow wraps the pipeline to one follower.
func (f *commitFeed) follow(inner raft.AppendPipeline) *commitPipeline {
	p := &commitPipeline{AppendPipeline: inner, feed: f, wake: make(chan struct{}, 1), early: make(chan []*raft.Log, 1), wrote: make(chan struct{}, 1), lock: make(chan struct{}, 1), closed: make(chan struct{})}
	p.wg.Go(p.loop) // until Close
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pipelines[p] = struct{}{}
	return p
}

// noticeEvery is the minimum time between two notices to one follower: under load the
// next entries carry the commit index, and no notice is needed.
const noticeEvery = time.Millisecond

// commitPipeline adds commit notices to the pipeline to one follower.
type commitPipeline struct {
	raft.AppendPipeline
	feed  *commitFeed
	wake  chan struct{}    // buffer of 1
	early chan []*raft.Log // buffer of 1: entries that are about to be written, see early.go
	wrote chan struct{}    // buffer of 1: feed.written was set

	// lock guards sent and notified, and orders the requests, so it is held while
	// one waits for room in the pipeline. It is a channel because the virtual time of
	// tests does not advance while a goroutine waits for a mutex.
	lock     chan struct{}
	sent     *raft.AppendEntriesRequest
	notified uint64 // the commit index that the follower has, limited to entries known to be ours

	closeOnce sync.Once
	closed    chan struct{}
	wg        sync.WaitGroup
}

// AppendEntries implements raft.AppendPipeline. raft does not use the future that it
// returns, but the answers of Consumer.
func (p *commitPipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	if len(req.Entries) > 0 && p.sent != nil && lastOf(req) <= lastOf(p.sent) {
		return nil, nil // sent early
	}
	return p.sendLocked(req, resp)
}

func (p *commitPipeline) sendLocked(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.sent, p.notified = req, min(req.LeaderCommitIndex, lastOf(req))
	future, err := p.AppendPipeline.AppendEntries(req, resp)
	if err != nil {
		p.sent = nil // so that raft's next request is not dropped, and raft sees the error
	}
	return future, err
}

// nextLocked returns a request without entries that follows the last one, with the
// commit index that the follower may have.
func (p *commitPipeline) nextLocked() *raft.AppendEntriesRequest {
	req := *p.sent
	req.PrevLogEntry, req.Entries = lastOf(p.sent), nil
	if n := len(p.sent.Entries); n > 0 {
		req.PrevLogTerm = p.sent.Entries[n-1].Term
	}
	req.LeaderCommitIndex = p.notified
	// Beyond the entries sent on this pipeline the follower may have entries of an
	// older leader, which the index must not commit.
	if index, ok := p.feed.committedIn(req.Term); ok {
		req.LeaderCommitIndex = max(p.notified, min(index, req.PrevLogEntry))
	}
	return &req
}

// lastOf is the last index up to which a follower that accepts the request has the
// leader's entries.
func lastOf(req *raft.AppendEntriesRequest) uint64 {
	if n := len(req.Entries); n > 0 {
		return req.Entries[n-1].Index
	}
	return req.PrevLogEntry
}

func (p *commitPipeline) loop() {
	interval := time.NewTimer(0)
	defer interval.Stop()
	noticeDue := false
	for {
		var due <-chan time.Time
		if noticeDue {
			due = interval.C
		}
		ok := true
		select {
		case <-p.wake:
			noticeDue = true
		case <-due:
			ok, noticeDue = p.notify(), false
			interval.Reset(noticeEvery)
		case logs := <-p.early:
			ok = p.sendEarly(logs)
		case <-p.closed:
			return
		}
		if !ok {
			return // raft sees the error too, and calls Close
		}
	}
}

// notify sends the commit index if the follower does not have it; false if the
// pipeline is broken.
func (p *commitPipeline) notify() bool {
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	if p.sent == nil {
		return true
	}
	req := p.nextLocked()
	if req.LeaderCommitIndex <= p.notified {
		return true
	}
	// raft receives the answer like those to its own requests.
	_, err := p.AppendPipeline.AppendEntries(req, new(raft.AppendEntriesResponse))
	p.notified = req.LeaderCommitIndex
	return err == nil
}

// Close closes the pipeline and waits for its notices.
func (p *commitPipeline) Close() error {
	p.closeOnce.Do(func() {
		p.feed.mu.Lock()
		delete(p.feed.pipelines, p)
		p.feed.mu.Unlock()
		close(p.closed)
	})
	err := p.AppendPipeline.Close() // unblocks a notice
	p.wg.Wait()
	return err
}
