package raftlog

import (
	"os"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Before the log's end is removed, the tail is synced: one that a power cut set back to
// an entry that is gone would look like a log that was cut off. The file here can be
// written and not synced.
func TestTailIsSyncedBeforeTheLogsEndIsRemoved(t *testing.T) {
	t.Parallel()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if f.Sync() == nil {
		t.Skipf("%s can be synced here", os.DevNull)
	}
	inner := raft.NewInmemStore()
	s := &logStore{
		LogStore: inner, Watchdog: Watchdog{MaxHang: time.Minute, Fatal: func(error) {}}, tail: &tail{file: f},
		keepFrom: func() (uint64, bool) { return 0, false },
	}
	for i := uint64(1); i <= 9; i++ {
		if err := s.StoreLog(&raft.Log{Index: i}); err != nil { // which does not sync it
			t.Fatal(err)
		}
	}
	if err := s.DeleteRange(5, 9); err == nil {
		t.Error("the log's end was removed without a sync of the tail")
	}
	if last, err := inner.LastIndex(); err != nil || last != 9 {
		t.Errorf("the log ends at %d, want 9; %v", last, err)
	}
}
