package rafttransport

import (
	"testing"

	"github.com/hashicorp/raft"
)

// The previous entry is compared with the snapshot only where raft cannot do it, and
// the commit index is limited to the entries sent.
func TestContinueAfterSnapshot(t *testing.T) {
	t.Parallel()
	entries := []*raft.Log{{Index: 6, Term: 3}, {Index: 7, Term: 3}}
	for name, c := range map[string]struct {
		prev     EntryID
		has      bool // the log has the previous entry
		snapshot EntryID
		entries  []*raft.Log
		commit   uint64
		passed   bool
		want     uint64 // commit index
	}{
		"right after the snapshot":   {EntryID{5, 3}, false, EntryID{5, 3}, entries, 6, true, 6},
		"commit index beyond":        {EntryID{5, 3}, false, EntryID{5, 3}, entries, 8, true, 7},
		"nothing after the snapshot": {EntryID{5, 3}, false, EntryID{5, 3}, nil, 8, true, 5},
		"the log has the entry":      {EntryID{5, 3}, true, EntryID{5, 3}, entries, 8, false, 8},
		"another entry":              {EntryID{4, 3}, false, EntryID{5, 3}, entries, 8, false, 8},
		"another term":               {EntryID{5, 2}, false, EntryID{5, 3}, entries, 8, false, 8},
		"the log ends there":         {EntryID{9, 3}, false, EntryID{9, 3}, entries, 8, false, 8},
		"from the beginning":         {EntryID{}, false, EntryID{}, entries, 8, false, 8},
	} {
		tr := &Transport{}
		node := &fakeNode{
			term: 3, state: raft.Follower, last: EntryID{Index: 9}, snapshot: c.snapshot,
			termAt: func(index uint64) (uint64, bool) { return 3, c.has && index == c.prev.Index },
		}
		m := &raft.AppendEntriesRequest{PrevLogEntry: c.prev.Index, PrevLogTerm: c.prev.Term, Entries: c.entries, LeaderCommitIndex: c.commit}
		tr.continueAfterSnapshot(node, m)
		prev := c.prev
		if c.passed {
			prev = EntryID{}
		}
		if (EntryID{m.PrevLogEntry, m.PrevLogTerm}) != prev || m.LeaderCommitIndex != c.want {
			t.Errorf("%s: raft gets entry %d of term %d before and commit index %d, want %v and %d", name, m.PrevLogEntry, m.PrevLogTerm, m.LeaderCommitIndex, prev, c.want)
		}
	}
}
