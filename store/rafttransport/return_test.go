package rafttransport

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// sendEntries sends entries of term 5 to n2, which nothing listens for; the channel is
// closed when the call returns.
func sendEntries(t *testing.T, tr *Transport) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		req := &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 7, PrevLogTerm: 5}
		if err := tr.AppendEntries("n2", "n2:1", req, new(raft.AppendEntriesResponse)); err == nil {
			t.Error("no error")
		}
	}()
	return done
}

func sendHeartbeat(tr *Transport, to raft.ServerID, term uint64) {
	_ = tr.AppendEntries(to, raft.ServerAddress(to+":1"), &raft.AppendEntriesRequest{Term: term}, new(raft.AppendEntriesResponse))
}

// leading is a leader of that node.
func leading(id raft.ServerID, term uint64) *fakeNode {
	n := at(term, raft.Leader)
	n.members = []raft.Server{{ID: id}}
	return n
}

func returned(done <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// Entries that could not be sent wait for an answered heartbeat, and for nothing that
// does not come.
func TestEntriesAwaitTheNodesReturn(t *testing.T) {
	for _, tc := range []struct {
		name  string
		do    func(tr *Transport)
		waits bool
	}{
		{"an answered heartbeat", func(tr *Transport) { tr.sentHeartbeats.end("n2", true) }, false},
		{"a heartbeat that failed", func(tr *Transport) { sendHeartbeat(tr, "n2", 5) }, true},
		{"an answered heartbeat of another node", func(tr *Transport) { tr.sentHeartbeats.end("n3", true) }, true},
		{"a heartbeat that failed, of a later term", func(tr *Transport) { tr.attach(leading("n2", 6)); sendHeartbeat(tr, "n2", 6) }, false},
		{"heartbeats that fail for a minute", func(tr *Transport) {
			for range 60 {
				after(time.Second)
				sendHeartbeat(tr, "n2", 5)
			}
		}, true},
		{"a heartbeat that failed, to a member", func(tr *Transport) { tr.attach(leading("n2", 5)); sendHeartbeat(tr, "n2", 5) }, true},
		{"a heartbeat that failed, to a removed node", func(tr *Transport) { tr.attach(leading("n3", 5)); sendHeartbeat(tr, "n2", 5) }, false},
		{"a heartbeat that failed, of a deposed leader", func(tr *Transport) { tr.attach(at(6, raft.Follower)); sendHeartbeat(tr, "n2", 5) }, false},
		{"a heartbeat that failed, of a leader that stepped down", func(tr *Transport) {
			n := leading("n2", 5)
			n.state = raft.Follower
			tr.attach(n)
			sendHeartbeat(tr, "n2", 5)
		}, false},
		{"no heartbeat any more", func(*Transport) { after(3 * time.Second) }, false},
		{"Close", func(tr *Transport) { _ = tr.Close() }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTestTransport()
				defer func() { _ = tr.Close() }()
				done := sendEntries(t, tr)
				if returned(done) {
					t.Fatal("returned at once")
				}
				tc.do(tr)
				if returned(done) == tc.waits {
					t.Errorf("waits: %v, want %v", !tc.waits, tc.waits)
				}
			})
		})
	}
}

type closingReader struct {
	io.Reader
	closed *bool
}

func (r closingReader) Close() error { *r.closed = true; return nil }

// A snapshot that could not be sent waits in the same way, with its file closed.
func TestSnapshotAwaitsTheNodesReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTransport()
		defer func() { _ = tr.Close() }()
		done, closed := make(chan struct{}), false
		go func() {
			defer close(done)
			_ = tr.InstallSnapshot("n2", "n2:1", &raft.InstallSnapshotRequest{Term: 5}, new(raft.InstallSnapshotResponse), closingReader{closed: &closed})
		}()
		if returned(done) {
			t.Fatal("returned at once")
		}
		if !closed {
			t.Error("the snapshot's file is open")
		}
		tr.sentHeartbeats.end("n2", true)
		if !returned(done) {
			t.Error("waits")
		}
	})
}
