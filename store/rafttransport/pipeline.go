package rafttransport

import (
	"sync"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline returns a pipeline whose answers are always received. After an
// answer that ends a pipeline, raft stops receiving answers at once but continues to
// send for a moment. In raft's own pipeline the sender then waits for room that only
// the receipt of an answer frees: the follower gets no more entries, and Shutdown
// never returns.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(t.commits.follow(inner)), nil
}

type pipeline struct {
	*commitPipeline
	answers   chan raft.AppendFuture
	closeOnce sync.Once
	closed    chan struct{}
}

func newPipeline(inner *commitPipeline) *pipeline {
	p := &pipeline{commitPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.pump() // until Close
	return p
}

// pump queues the answers that raft has not received, in their order. They are few: raft
// receives them at once until it ends the pipeline, apart from those to entries that
// are still being written here.
func (p *pipeline) pump() {
	var queue []raft.AppendFuture
	for {
		var first raft.AppendFuture
		var out chan<- raft.AppendFuture
		if len(queue) > 0 && p.mayPass(queue[0]) {
			first, out = queue[0], p.answers
		}
		select {
		case f := <-p.commitPipeline.Consumer():
			queue = append(queue, f)
		case <-p.wrote:
		case out <- first:
			queue = queue[1:]
		case <-p.closed:
			return
		}
	}
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.closeOnce.Do(func() { close(p.closed) })
	return p.commitPipeline.Close()
}
