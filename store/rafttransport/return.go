package rafttransport

import (
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// InstallSnapshot sends a snapshot.
func (t *Transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
	if err != nil {
		if file, ok := data.(io.Closer); ok {
			_ = file.Close() // raft keeps it open until this call returns
		}
		t.awaitReturn(id, args.Term)
	}
	return err
}

// awaitReturn returns when the node has answered a heartbeat, after entries or a
// snapshot could not be sent to it.
//
// Raft v1.8.0 doubles its pause after each failed attempt to send entries, up to 10.24 s,
// and does not end the pause when the node is back: a node that was away for seconds
// would get no entries for up to ten seconds more. Heartbeats go on with pauses of half
// an election timeout at most, so they find the node first. While the attempt waits
// here, raft counts one failure for all the time that the node is away.
//
// It also returns once the node was removed, or this node does not lead in that term any
// more: raft waits for the attempt, and sends heartbeats until it has returned.
func (t *Transport) awaitReturn(id raft.ServerID, term uint64) {
	// The next heartbeat ends within a dial, an answer, and the pause.
	silence := time.NewTimer(3 * t.cfg.Timeout)
	defer silence.Stop()
	for {
		b := t.sentHeartbeats.next(id)
		select {
		case <-b.ended:
			if b.answered || !t.leads(id, term) {
				return
			}
			silence.Reset(3 * t.cfg.Timeout)
		case <-silence.C:
			return
		case <-t.closed:
			return
		}
	}
}

// leads reports whether this node leads that node in that term.
func (t *Transport) leads(id raft.ServerID, term uint64) bool {
	at := t.node.Load()
	if at == nil {
		return true // raft has just started
	}
	node := *at
	return node.State() == raft.Leader && node.CurrentTerm() == term &&
		slices.ContainsFunc(node.Members(), func(m raft.Server) bool { return m.ID == id })
}

// sentHeartbeats tells those that wait how heartbeats to other nodes ended. Its zero value
// is ready.
type sentHeartbeats struct {
	mu     sync.Mutex
	waited map[raft.ServerID]*sentHeartbeat // the next heartbeat, if anyone waits for it
}

// sentHeartbeat is a heartbeat to another node.
type sentHeartbeat struct {
	ended    chan struct{}
	answered bool // set before ended is closed
}

// next returns the next heartbeat to the node that ends.
func (s *sentHeartbeats) next(id raft.ServerID) *sentHeartbeat {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.waited[id]
	if b == nil {
		if s.waited == nil {
			s.waited = make(map[raft.ServerID]*sentHeartbeat)
		}
		b = &sentHeartbeat{ended: make(chan struct{})}
		s.waited[id] = b
	}
	return b
}

func (s *sentHeartbeats) end(id raft.ServerID, answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.waited[id]; b != nil {
		delete(s.waited, id)
		b.answered = answered
		close(b.ended)
	}
}

// isHeartbeat reports whether raft treats the request as a heartbeat: it has no entries
// and states nothing about the log.
func isHeartbeat(m *raft.AppendEntriesRequest) bool {
	return len(m.Entries) == 0 && m.PrevLogEntry == 0 && m.PrevLogTerm == 0 && m.LeaderCommitIndex == 0
}
