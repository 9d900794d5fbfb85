package rafttransport

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// committed returns a node with that commit index and term.
func committed(index, term uint64) *fakeNode {
	n := &fakeNode{term: term}
	n.commit.Store(index)
	return n
}

// newFeed returns a feed without a node until attach.
func newFeed() (feed *commitFeed, attach func(Node)) {
	var at atomic.Pointer[Node]
	return newCommitFeed(&at), func(n Node) { at.Store(&n) }
}

// fakePipeline records what is sent.
type fakePipeline struct {
	raft.AppendPipeline
	sent []*raft.AppendEntriesRequest
	err  error // of all that is sent
}

func (f *fakePipeline) AppendEntries(req *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	f.sent = append(f.sent, req)
	return nil, f.err
}

func (f *fakePipeline) Close() error { return nil }

// A follower gets a new commit index at once, limited to this term's commits and to the
// entries sent to it.
func TestCommitIsAnnounced(t *testing.T) {
	const term = 7
	entries := func(from, to uint64) []*raft.Log {
		var logs []*raft.Log
		for i := from; i <= to; i++ {
			logs = append(logs, &raft.Log{Index: i, Term: term})
		}
		return logs
	}
	after12 := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: 11, PrevLogTerm: 6, Entries: entries(12, 14), LeaderCommitIndex: 11}
	for name, c := range map[string]struct {
		sent      *raft.AppendEntriesRequest
		committed uint64
		term      uint64
		want      uint64 // 0: no notice
	}{
		"all that was sent is committed":    {after12, 14, term, 14},
		"some of it":                        {after12, 13, term, 13},
		"more than was sent":                {after12, 20, term, 14},
		"nothing more than it knows":        {after12, 11, term, 0},
		"another leader's commit":           {after12, 14, term + 1, 0},
		"nothing sent yet":                  {nil, 14, term, 0},
		"without entries":                   {&raft.AppendEntriesRequest{Term: term, PrevLogEntry: 9, PrevLogTerm: 6, LeaderCommitIndex: 8}, 12, term, 9},
		"the follower has the commit index": {&raft.AppendEntriesRequest{Term: term, PrevLogEntry: 9, LeaderCommitIndex: 12}, 12, term, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, inner := committed(c.committed, c.term), &fakePipeline{}
				feed, attach := newFeed()
				p := feed.follow(inner)
				defer func() { _ = p.Close() }()
				feed.advanced() // without a node
				synctest.Wait()
				attach(source)
				before := 0
				if c.sent != nil {
					if _, err := p.AppendEntries(c.sent, new(raft.AppendEntriesResponse)); err != nil {
						t.Fatal(err)
					}
					before = 1
				}
				for range 3 { // the second and third find nothing new
					feed.advanced()
					after(noticeEvery)
					synctest.Wait()
				}
				switch notices := inner.sent[before:]; {
				case c.want == 0 && len(notices) > 0:
					t.Errorf("announced %d", notices[0].LeaderCommitIndex)
				case c.want == 0:
				case len(notices) != 1:
					t.Errorf("%d notices, want 1", len(notices))
				default:
					checkNotice(t, notices[0], c.sent, c.want)
				}
			})
		})
	}
}

func checkNotice(t *testing.T, got, sent *raft.AppendEntriesRequest, want uint64) {
	t.Helper()
	prevTerm := sent.PrevLogTerm
	if n := len(sent.Entries); n > 0 {
		prevTerm = sent.Entries[n-1].Term
	}
	if got.LeaderCommitIndex != want || got.Term != sent.Term || len(got.Entries) != 0 || got.PrevLogEntry != lastOf(sent) || got.PrevLogTerm != prevTerm {
		t.Errorf("notice %+v after %+v, want commit index %d", got, sent, want)
	}
}

// Notices are limited in rate, and a closed pipeline sends none.
func TestNoticesAreLimitedInRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, inner := committed(0, 7), &fakePipeline{}
		feed, attach := newFeed()
		attach(source)
		p := feed.follow(inner)
		req := &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: 1 << 20}
		if _, err := p.AppendEntries(req, nil); err != nil {
			t.Fatal(err)
		}
		const commits = 100
		for range commits {
			source.commit.Add(1)
			feed.advanced()
			synctest.Wait()
			after(noticeEvery / 10)
		}
		after(noticeEvery)
		synctest.Wait()
		if n := len(inner.sent) - 1; n < commits/10 || n > commits/10+2 {
			t.Errorf("%d notices in %v", n, commits*noticeEvery/10)
		}
		if last := inner.sent[len(inner.sent)-1]; last.LeaderCommitIndex != commits {
			t.Errorf("the last notice is of %d", last.LeaderCommitIndex)
		}
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		sent := len(inner.sent)
		source.commit.Add(1)
		feed.advanced()
		after(time.Second)
		if len(inner.sent) != sent || len(feed.pipelines) != 0 {
			t.Error("a closed pipeline sends notices")
		}
	})
}
