package rafttransport

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func follower(term uint64) *fakeNode { return at(term, raft.Follower) }

func at(term uint64, state raft.RaftState) *fakeNode {
	return &fakeNode{term: term, state: state, last: EntryID{Index: 9}}
}

func newTestTransport() *Transport { return New(Config{Streams: noStreams{}, Timeout: time.Second}) }

func beat(term uint64) (raft.RPC, chan raft.RPCResponse) {
	answers := make(chan raft.RPCResponse, 1)
	return raft.RPC{Command: &raft.AppendEntriesRequest{Term: term}, RespChan: answers}, answers
}

// Only a heartbeat of the current term to a follower is answered outside the main loop,
// and the main loop still receives it.
func TestHeartbeatsOutsideTheMainLoop(t *testing.T) {
	for _, tc := range []struct {
		name    string
		term    uint64
		node    *fakeNode
		outside bool
	}{
		{"of the current term", 5, follower(5), true},
		{"of a newer term", 6, follower(5), false},
		{"of an older term", 4, follower(5), false},
		{"to a candidate", 5, at(5, raft.Candidate), false},
		{"to a leader", 5, at(5, raft.Leader), false},
		{"of a newer term to a leader", 6, at(5, raft.Leader), false},
		{"to a node that stops", 5, at(5, raft.Shutdown), false},
		{"before raft has started", 5, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTestTransport()
				defer func() { _ = tr.Close() }()
				if tc.node != nil {
					tr.attach(tc.node)
				}
				rpc, answers := beat(tc.term)
				go tr.heartbeat(rpc)
				synctest.Wait() // the main loop does not run
				select {
				case a := <-answers:
					resp, ok := a.Response.(*raft.AppendEntriesResponse)
					if !tc.outside || !ok || !resp.Success || resp.Term != 5 || resp.LastLog != 9 || a.Error != nil {
						t.Errorf("answered %+v, %v", a.Response, a.Error)
					}
				default:
					if tc.outside {
						t.Error("waits for the main loop")
					}
				}
				if got := (<-tr.Consumer()).Command; got != rpc.Command {
					t.Errorf("the main loop got %+v", got)
				}
			})
		})
	}
}

// However long the main loop is blocked, few answered heartbeats wait for it.
func TestHeartbeatsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTransport()
		defer func() { _ = tr.Close() }()
		tr.attach(follower(5))
		for range 100 {
			rpc, answers := beat(5)
			tr.heartbeat(rpc)
			<-answers
		}
		seen := 0
		for waits := true; waits; {
			synctest.Wait()
			select {
			case <-tr.Consumer():
				seen++
			default:
				waits = false
			}
		}
		if seen < 1 || seen > 2 { // one in the pump, one in the channel
			t.Errorf("%d heartbeats wait for the main loop", seen)
		}
	})
}

// A closed transport blocks no caller.
func TestHeartbeatOfAClosedTransport(t *testing.T) {
	tr := newTestTransport()
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	rpc, _ := beat(1)
	tr.heartbeat(rpc)
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}
