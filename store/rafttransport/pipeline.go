package rafttransport

import (
	"sync"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline returns a pipeline whose answers are always taken. When
// raft sees an answer that ends a pipeline, it stops to read answers at once,
// but goes on sending until it notices. In raft's own pipeline the sender then
// waits for a place that the next answer should free, which nobody takes: the
// follower gets no more entries, and Shutdown waits for ever.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(t.commits.follow(inner)), nil
}

type pipeline struct {
	raft.AppendPipeline
	answers   chan raft.AppendFuture
	closeOnce sync.Once
	closed    chan struct{}
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.pump() // until Close
	return p
}

// pump holds the answers that raft has not read, which are few: raft reads
// them as they come, until it ends the pipeline.
func (p *pipeline) pump() {
	var held []raft.AppendFuture
	for {
		var first raft.AppendFuture
		var out chan<- raft.AppendFuture
		if len(held) > 0 {
			first, out = held[0], p.answers
		}
		select {
		case f := <-p.AppendPipeline.Consumer():
			held = append(held, f)
		case out <- first:
			held = held[1:]
		case <-p.closed:
			return
		}
	}
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.closeOnce.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}
