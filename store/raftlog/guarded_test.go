package raftlog

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// After an installed snapshot the entries beyond it stay; a conflict at the log's first
// entry still removes all.
func TestLogKeepsEntriesBeyondASnapshot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		covered     uint64
		before      func(*logStore)
		first, last uint64
	}{
		"a snapshot in the middle":  {12, func(s *logStore) { s.IsMonotonic() }, 13, 20},
		"a snapshot just before":    {4, func(s *logStore) { s.IsMonotonic() }, 5, 20},
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
			LogStore: inner, Watchdog: Watchdog{MaxHang: time.Minute, Fatal: func(err error) { t.Error(err) }},
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
