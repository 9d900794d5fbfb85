package rafttransport

import (
	"testing"

	"github.com/hashicorp/raft"
)

// The previous entry is compared with the snapshot only where raft cannot do it.
func TestContinueAfterSnapshot(t *testing.T) {
	t.Parallel()
	entries := []*raft.Log{{Index: 6, Term: 3}, {Index: 7, Term: 3}}
	for name, c := range map[string]struct {
		prev     EntryID
		has      bool // the log has the previous entry
		snapshot EntryID
		entries  []*raft.Log
		passed   bool
	}{
		"right after the snapshot":   {EntryID{5, 3}, false, EntryID{5, 3}, entries, true},
		"nothing after the snapshot": {EntryID{5, 3}, false, EntryID{5, 3}, nil, true},
		"the log has the entry":      {EntryID{5, 3}, true, EntryID{5, 3}, entries, false},
		"another entry":              {EntryID{4, 3}, false, EntryID{5, 3}, entries, false},
		"another term":               {EntryID{5, 2}, false, EntryID{5, 3}, entries, false},
		"the log ends there":         {EntryID{9, 3}, false, EntryID{9, 3}, entries, false},
		"from the beginning":         {EntryID{}, false, EntryID{}, entries, false},
	} {
		tr := &Transport{}
		node := &fakeNode{
			term: 3, state: raft.Follower, last: EntryID{Index: 9}, snapshot: c.snapshot,
			termAt: func(index uint64) (uint64, bool) { return 3, c.has && index == c.prev.Index },
		}
		m := &raft.AppendEntriesRequest{PrevLogEntry: c.prev.Index, PrevLogTerm: c.prev.Term, Entries: c.entries}
		tr.continueAfterSnapshot(node, m)
		prev := c.prev
		if c.passed {
			prev = EntryID{}
		}
		if (EntryID{m.PrevLogEntry, m.PrevLogTerm}) != prev {
			t.Errorf("%s: raft gets entry %d of term %d before, want %v", name, m.PrevLogEntry, m.PrevLogTerm, prev)
		}
	}
}
