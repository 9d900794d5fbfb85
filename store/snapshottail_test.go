package store

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

type afterSnapshot struct {
	fixedElectorate
	snapshot logEnd
}

func (e afterSnapshot) LastSnapshot() logEnd { return e.snapshot }

// The check of the entry before is made against the snapshot only where raft
// cannot make it, and the commit index goes no further than what was sent.
func TestFollowSnapshot(t *testing.T) {
	t.Parallel()
	entries := []*raft.Log{{Index: 6, Term: 3}, {Index: 7, Term: 3}}
	for name, c := range map[string]struct {
		prev     logEnd
		has      bool // the log has the entry before
		snapshot logEnd
		entries  []*raft.Log
		commit   uint64
		passed   bool
		want     uint64 // commit index
	}{
		"right after the snapshot":   {logEnd{5, 3}, false, logEnd{5, 3}, entries, 6, true, 6},
		"commit index beyond":        {logEnd{5, 3}, false, logEnd{5, 3}, entries, 8, true, 7},
		"nothing after the snapshot": {logEnd{5, 3}, false, logEnd{5, 3}, nil, 8, true, 5},
		"the log has the entry":      {logEnd{5, 3}, true, logEnd{5, 3}, entries, 8, false, 8},
		"another entry":              {logEnd{4, 3}, false, logEnd{5, 3}, entries, 8, false, 8},
		"another term":               {logEnd{5, 2}, false, logEnd{5, 3}, entries, 8, false, 8},
		"the log ends there":         {logEnd{9, 3}, false, logEnd{9, 3}, entries, 8, false, 8},
		"from the beginning":         {logEnd{}, false, logEnd{}, entries, 8, false, 8},
	} {
		tr := &transport{
			electorate: afterSnapshot{snapshot: c.snapshot},
			termAt:     func(index uint64) (uint64, bool) { return 3, c.has && index == c.prev.index },
		}
		m := &raft.AppendEntriesRequest{PrevLogEntry: c.prev.index, PrevLogTerm: c.prev.term, Entries: c.entries, LeaderCommitIndex: c.commit}
		tr.followSnapshot(&view{3, raft.Follower}, m) // whose log ends at 9
		prev := c.prev
		if c.passed {
			prev = logEnd{}
		}
		if (logEnd{m.PrevLogEntry, m.PrevLogTerm}) != prev || m.LeaderCommitIndex != c.want {
			t.Errorf("%s: raft gets entry %d of term %d before and commit index %d, want %v and %d", name, m.PrevLogEntry, m.PrevLogTerm, m.LeaderCommitIndex, prev, c.want)
		}
	}
}

// After a snapshot that was sent, what goes beyond it stays; a conflict at the
// log's first entry still takes all.
func TestLogKeepsWhatASnapshotDoesNotCover(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		covered     uint64
		before      func(*logStore)
		first, last uint64
	}{
		"a snapshot in the middle":  {12, func(s *logStore) { s.IsMonotonic() }, 13, 20},
		"a snapshot beyond the end": {30, func(s *logStore) { s.IsMonotonic() }, 0, 0},
		"a snapshot before the log": {2, func(s *logStore) { s.IsMonotonic() }, 0, 0},
		"a conflict, no snapshot":   {12, func(*logStore) {}, 0, 0},
		"a conflict, some time later": {12, func(s *logStore) {
			s.IsMonotonic()
			if err := s.StoreLog(&raft.Log{Index: 20}); err != nil {
				t.Fatal(err)
			}
		}, 0, 0},
	} {
		inner := raft.NewInmemStore()
		s := &logStore{
			LogStore: inner, failStop: failStop{maxHang: time.Minute, fatal: func(err error) { t.Error(err) }},
			keepFrom: func() (uint64, bool) { return 0, false }, covered: func() (uint64, bool) { return c.covered, true },
		}
		for i := uint64(5); i <= 20; i++ {
			if err := s.StoreLog(&raft.Log{Index: i}); err != nil {
				t.Fatal(err)
			}
		}
		c.before(s)
		if err := s.DeleteRange(5, 20); err != nil {
			t.Fatal(err)
		}
		first, _ := inner.FirstIndex()
		last, _ := inner.LastIndex()
		if first != c.first || last != c.last {
			t.Errorf("%s: the log goes from %d to %d, want %d to %d", name, first, last, c.first, c.last)
		}
	}
}
