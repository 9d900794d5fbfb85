package rafttransport

import "github.com/hashicorp/raft"

// A leader sends entries while it writes them to its own log. raft itself writes first
// and sends then, so an entry waits for two writes, one after the other. Section 10.2.1
// of Ongaro's dissertation has why the order does not matter: an entry is committed
// when a majority has written it, and the leader is one of them only after its write.
//
// Here raft cannot tell the difference: the followers' answers wait until the leader
// has written the entries, so raft never counts, and never refers to, an entry that its
// own log lacks. If the leader ends before its write, it has acknowledged nothing, and
// followers may have more than it has, in a term in which it does not lead again.
//
// Example: entry 13 is about to be written, and 12 was the last that was sent. Each
// pipeline sends 13 after 12. Its answer comes and is kept. The write ends; raft gets
// the answer. raft then sends 13 itself, which is dropped, because it was sent.

// writing offers the pipelines entries that this node is about to write. A pipeline
// that is busy does not take them: raft sends them after the write. It does not block.
func (f *commitFeed) writing(logs []*raft.Log) {
	for _, l := range logs {
		// raft counts by a new configuration only after it was written.
		if l.Type != raft.LogCommand {
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.pipelines {
		select {
		case p.early <- logs:
		default:
		}
	}
}

// wroteUpTo notes the last entry that was written. It may be below the one before,
// where entries were removed in between.
func (f *commitFeed) wroteUpTo(index uint64) {
	f.written.Store(index)
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.pipelines {
		select {
		case p.wrote <- struct{}{}:
		default:
		}
	}
}

// sendEarly sends entries that follow what was sent; false if the pipeline is broken. A
// follower writes entries too, in another leader's term.
func (p *commitPipeline) sendEarly(logs []*raft.Log) bool {
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	if p.sent == nil || logs[0].Term != p.sent.Term || logs[0].Index != lastOf(p.sent)+1 {
		return true
	}
	req := p.nextLocked()
	req.Entries = logs
	_, err := p.sendLocked(req, new(raft.AppendEntriesResponse))
	return err == nil
}

// mayPass reports whether raft may have the answer: this node has written the entries.
func (p *commitPipeline) mayPass(answer raft.AppendFuture) bool {
	req := answer.Request()
	return len(req.Entries) == 0 || lastOf(req) <= p.feed.written.Load()
}
