package rafttransport

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// logsOf returns commands of a term.
func logsOf(term, from, to uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand})
	}
	return logs
}

// A pipeline sends entries before this node has written them, if they follow what it
// sent in its own term; raft's own request with them is then dropped.
func TestEntriesAreSentBeforeTheyAreWritten(t *testing.T) {
	const term = 7
	upTo12 := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: 10, PrevLogTerm: 6, Entries: logsOf(term, 11, 12), LeaderCommitIndex: 10}
	configuration := logsOf(term, 13, 14)
	configuration[1].Type = raft.LogConfiguration
	for name, c := range map[string]struct {
		sent *raft.AppendEntriesRequest
		logs []*raft.Log
		want bool
	}{
		"the next entries":           {upTo12, logsOf(term, 13, 14), true},
		"after one without entries":  {&raft.AppendEntriesRequest{Term: term, PrevLogEntry: 12, PrevLogTerm: term}, logsOf(term, 13, 14), true},
		"entries after a gap":        {upTo12, logsOf(term, 14, 15), false},
		"entries that were sent":     {upTo12, logsOf(term, 12, 13), false},
		"those of another leader":    {upTo12, logsOf(term+1, 13, 14), false},
		"nothing was sent before":    {nil, logsOf(term, 13, 14), false},
		"a change of the membership": {upTo12, configuration, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &fakePipeline{}
				feed, attach := newFeed()
				attach(committed(12, term))
				p := feed.follow(inner)
				defer func() { _ = p.Close() }()
				send := func(req *raft.AppendEntriesRequest) {
					t.Helper()
					if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
						t.Fatal(err)
					}
				}
				before := 0
				if c.sent != nil {
					send(c.sent)
					before = 1
				}
				feed.writing(c.logs)
				synctest.Wait()
				early := inner.sent[before:]
				if !c.want {
					if len(early) != 0 {
						t.Errorf("sent %+v", early[0])
					}
					return
				}
				if len(early) != 1 || early[0].Term != term || early[0].PrevLogEntry != 12 || early[0].PrevLogTerm != term || len(early[0].Entries) != 2 || lastOf(early[0]) != 14 || early[0].LeaderCommitIndex != 12 {
					t.Fatalf("sent %+v", early)
				}
				send(&raft.AppendEntriesRequest{Term: term, PrevLogEntry: 12, PrevLogTerm: term, Entries: logsOf(term, 13, 14)})
				if len(inner.sent) != before+1 {
					t.Error("the entries are sent twice")
				}
				send(&raft.AppendEntriesRequest{Term: term, PrevLogEntry: 12, PrevLogTerm: term, Entries: logsOf(term, 13, 15)})
				if len(inner.sent) != before+2 || lastOf(inner.sent[before+1]) != 15 {
					t.Error("an entry that was not sent early is not sent")
				}
			})
		})
	}
}

// raft learns from its own request that the connection broke while entries were sent early.
func TestBrokenPipelineIsSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakePipeline{}
		feed, attach := newFeed()
		attach(committed(12, 7))
		p := feed.follow(inner)
		defer func() { _ = p.Close() }()
		req := &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: 12, PrevLogTerm: 7}
		if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
		inner.err = io.ErrClosedPipe
		feed.writing(logsOf(7, 13, 14))
		synctest.Wait()
		req = &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: 12, PrevLogTerm: 7, Entries: logsOf(7, 13, 14)}
		if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); !errors.Is(err, io.ErrClosedPipe) || len(inner.sent) != 3 {
			t.Errorf("raft's request with the same entries: %v, after %d messages", err, len(inner.sent))
		}
	})
}

// answered is the answer to a request.
type answered struct {
	raft.AppendFuture
	req *raft.AppendEntriesRequest
}

func (a answered) Request() *raft.AppendEntriesRequest { return a.req }

// raft gets the answer to entries only when this node has written them, and answers in
// their order.
func TestAnswersWaitForTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &stuckPipeline{done: make(chan raft.AppendFuture)}
		feed, _ := newFeed()
		feed.wroteUpTo(100) // as another leader's follower; removed since
		feed.wroteUpTo(12)
		p := newPipeline(feed.follow(inner))
		defer func() { _ = p.Close() }()
		for _, req := range []*raft.AppendEntriesRequest{
			{Entries: logsOf(7, 11, 12)}, {Entries: logsOf(7, 13, 14)}, {PrevLogEntry: 14},
		} {
			inner.done <- answered{req: req}
		}
		received := func() (lasts []uint64) {
			for {
				synctest.Wait()
				select {
				case f := <-p.Consumer():
					lasts = append(lasts, lastOf(f.Request()))
				default:
					return lasts
				}
			}
		}
		if got := received(); len(got) != 1 || got[0] != 12 {
			t.Errorf("before the write: answers to entries up to %v, want 12", got)
		}
		feed.wroteUpTo(13)
		if got := received(); len(got) != 0 {
			t.Errorf("after a part of the write: answers to entries up to %v", got)
		}
		feed.wroteUpTo(14)
		if got := received(); len(got) != 2 || got[0] != 14 {
			t.Errorf("after the write: answers to entries up to %v, want 14 and one without", got)
		}
	})
}
