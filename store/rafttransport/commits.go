package rafttransport

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// commitFeed tells followers of a commit as soon as it is one. raft itself
// tells them with the next entries, or, when none come, 50 to 100 ms later
// (CommitTimeout): for so long a watch on a follower, a linearizable read there,
// and a read of what was just written wait for nothing. An idle cluster pays for
// a shorter CommitTimeout all the time, this costs a message for a commit that
// no entries follow.
//
// Example: entry 12 was sent with "committed: 11". The quorum answers, raft
// gives 12 to the state machine, and each pipeline sends once more what it sent
// last, without entries and with "committed: 12".
type commitFeed struct {
	node *atomic.Pointer[Node] // nil until raft runs

	mu        sync.Mutex // guards pipelines
	pipelines map[*commitPipeline]struct{}
}

func newCommitFeed(node *atomic.Pointer[Node]) *commitFeed {
	return &commitFeed{node: node, pipelines: make(map[*commitPipeline]struct{})}
}

// advanced wakes the pipelines: raft's commit index has moved. It does not block.
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

// committedIn returns the commit index, if it is one that the leader of that
// term found, or an older one. The order matters: a node takes a newer term
// before it takes a newer leader's commit index, so an index that was read
// before the term is still the old one belongs to the old one. A commit index of
// another leader must not go to a follower that has not heard of that leader: it
// may hold other entries there.
func (f *commitFeed) committedIn(term uint64) (uint64, bool) {
	s := f.node.Load()
	if s == nil {
		return 0, false
	}
	index := (*s).CommitIndex()
	return index, (*s).CurrentTerm() == term
}

// follow wraps the pipeline to one follower.
func (f *commitFeed) follow(inner raft.AppendPipeline) raft.AppendPipeline {
	p := &commitPipeline{AppendPipeline: inner, feed: f, wake: make(chan struct{}, 1), lock: make(chan struct{}, 1), closed: make(chan struct{})}
	p.wg.Go(p.loop) // until Close
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pipelines[p] = struct{}{}
	return p
}

// noticeEvery is the least time between two notices to one follower: under
// load the next entries carry the commit index, and a notice is not due any more.
const noticeEvery = time.Millisecond

// commitPipeline adds notices of commits to a pipeline to one follower.
type commitPipeline struct {
	raft.AppendPipeline
	feed *commitFeed
	wake chan struct{} // holds one

	// lock holds one while someone uses the rest, and orders what is sent. It is
	// kept through waits for a place in the pipeline, and the virtual time of
	// tests stands still while a mutex is waited for.
	lock chan struct{}
	sent *raft.AppendEntriesRequest
	told uint64 // the commit index that the follower has been told of, as far as its entries are known to be ours

	closeOnce sync.Once
	closed    chan struct{}
	wg        sync.WaitGroup
}

// AppendEntries implements raft.AppendPipeline.
func (p *commitPipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	p.sent, p.told = req, min(req.LeaderCommitIndex, lastOf(req))
	return p.AppendPipeline.AppendEntries(req, resp)
}

// lastOf is the index up to which a follower that accepts a request has the
// leader's entries.
func lastOf(req *raft.AppendEntriesRequest) uint64 {
	if n := len(req.Entries); n > 0 {
		return req.Entries[n-1].Index
	}
	return req.PrevLogEntry
}

func (p *commitPipeline) loop() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-p.wake:
		case <-p.closed:
			return
		}
		select {
		case <-pause.C:
		case <-p.closed:
			return
		}
		if !p.notify() {
			return // raft notices as well, and closes
		}
		pause.Reset(noticeEvery)
	}
}

// notify sends the commit index if the follower does not know it; false when
// the pipeline is broken.
func (p *commitPipeline) notify() bool {
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	if p.sent == nil {
		return true
	}
	index, ok := p.feed.committedIn(p.sent.Term)
	last := lastOf(p.sent)
	// Beyond what was sent on this pipeline the follower may hold entries of
	// an older leader, which the index must not commit.
	if index = min(index, last); !ok || index <= p.told {
		return true
	}
	req := *p.sent
	req.LeaderCommitIndex, req.Entries = index, nil
	if n := len(p.sent.Entries); n > 0 {
		req.PrevLogEntry, req.PrevLogTerm = last, p.sent.Entries[n-1].Term
	}
	// Its answer goes to raft, to which it is an answer to a request like its own.
	_, err := p.AppendPipeline.AppendEntries(&req, new(raft.AppendEntriesResponse))
	p.told = index
	return err == nil
}

// Close ends the pipeline and waits for its notices.
func (p *commitPipeline) Close() error {
	p.closeOnce.Do(func() {
		p.feed.mu.Lock()
		delete(p.feed.pipelines, p)
		p.feed.mu.Unlock()
		close(p.closed)
	})
	err := p.AppendPipeline.Close() // a notice under way ends
	p.wg.Wait()
	return err
}
