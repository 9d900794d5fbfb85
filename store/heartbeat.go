package store

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// transport is raft's network transport with another fast path for heartbeats.
//
// Raft's own runs its append handler, which belongs to the main loop, on the
// connection's goroutine. A newer leader's heartbeat can then raise the term
// while a deposed leader is in the middle of a write, and the entries are
// stored under a term that is not their leader's. To let only heartbeats of the
// current term pass while the node follows is not enough: the node may start an
// election between that check and the handler's own, which then writes the old
// term over the one that the node has just voted in, on disk too.
//
// Here a heartbeat of the current term is answered by the transport, which
// reads raft's state and never changes it, and then goes to the main loop as
// well, which notes the contact when it comes to it. All others take the main
// loop's channel alone. So a leader keeps a follower whose main loop waits for
// its disk. That answer says no more than that the node had not gone beyond the
// leader's term after the heartbeat came; raft uses it for the leader's lease
// and for VerifyLeader, and for both this is enough. A follower does not miss
// the contact that its main loop has not noted yet: the main loop is what looks
// at the election timer, and a write that held it up ends with noting contact.
//
// Embedding keeps pre-vote, which raft looks for on the transport's type.
type transport struct {
	*raft.NetworkTransport
	commits *commitFeed
	fresh   *freshness

	view  atomic.Pointer[raftView] // nil until raft has started
	calls chan raft.RPC            // what the main loop takes
	// beats holds the heartbeat that was answered and that the main loop has
	// not seen; while one waits, later ones would tell it nothing.
	beats chan raft.RPC
	last  atomic.Pointer[caller] // the last one that spoke as a leader

	refused func(error) // told of messages that are not for raft
	// termAt is the term of an entry that the log has; set before attach.
	termAt func(index uint64) (term uint64, ok bool)
	// electorate is raft's log and members; set before attach.
	electorate electorate

	choose func(t *transport, rafts func(raft.RPC)) func(raft.RPC) // tests compare handlers

	closeOnce sync.Once
	closed    chan struct{}
	wg        sync.WaitGroup
}

// raftView is what the fast path reads of raft; it is safe on any goroutine.
type raftView interface {
	CurrentTerm() uint64
	State() raft.RaftState
	LastIndex() uint64
}

var _ raft.WithPreVote = &transport{}

func newTransport(inner *raft.NetworkTransport) *transport {
	t := &transport{
		NetworkTransport: inner, refused: func(error) {}, calls: make(chan raft.RPC), beats: make(chan raft.RPC, 1), closed: make(chan struct{}),
	}
	t.wg.Go(t.pump)
	return t
}

// attach starts the fast path: before, heartbeats take the channel.
func (t *transport) attach(v raftView) { t.view.Store(&v) }

// Consumer is what raft's main loop reads.
func (t *transport) Consumer() <-chan raft.RPC { return t.calls }

// SetHeartbeatHandler sets the transport's own handler instead of raft's.
func (t *transport) SetHeartbeatHandler(rafts func(raft.RPC)) {
	handler := t.heartbeat
	if t.choose != nil {
		handler = t.choose(t, rafts)
	}
	t.NetworkTransport.SetHeartbeatHandler(handler)
}

// Close ends the transport; the streams are closed by CloseStreams.
func (t *transport) Close() error {
	t.closeOnce.Do(func() { close(t.closed) })
	err := t.NetworkTransport.Close()
	t.wg.Wait()
	return err
}

// pump brings the main loop the calls of the network transport and the
// heartbeats that were answered already.
func (t *transport) pump() {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-t.NetworkTransport.Consumer():
		case rpc = <-t.beats:
		case <-t.closed:
			return
		}
		if !t.pass(rpc) {
			return
		}
	}
}

// pass gives a call to the main loop, or answers it if it may not get there;
// false: the transport was closed.
func (t *transport) pass(rpc raft.RPC) bool {
	if view := t.view.Load(); view != nil {
		if err := checkCall((*view).CurrentTerm(), rpc.Command); err != nil {
			t.refused(err)
			rpc.Respond(nil, err)
			return true
		}
		if t.needless(*view, rpc) {
			return true
		}
		t.hearCandidate(rpc.Command)
		t.followSnapshot(*view, rpc.Command)
	}
	t.noteLeader(rpc.Command)
	select {
	case t.calls <- rpc:
		return true
	case <-t.closed:
		return false
	}
}

// caller is a leader by its own account.
type caller struct {
	term uint64
	addr raft.ServerAddress
	id   raft.ServerID
}

func (t *transport) noteLeader(command any) {
	m, ok := command.(*raft.AppendEntriesRequest)
	if !ok {
		return
	}
	if last := t.last.Load(); last == nil || last.term != m.Term {
		t.last.Store(&caller{m.Term, raft.ServerAddress(m.Addr), raft.ServerID(m.ID)})
	}
}

// heartbeat runs on the connection's goroutine.
func (t *transport) heartbeat(rpc raft.RPC) {
	resp := t.answer(rpc.Command)
	if resp == nil {
		t.pass(rpc)
		return
	}
	t.noteLeader(rpc.Command)
	rpc.Respond(resp, nil)
	select {
	case t.beats <- raft.RPC{Command: rpc.Command, RespChan: make(chan raft.RPCResponse, 1)}:
	default:
	}
}

// answer returns nil for a heartbeat that is for the main loop to judge.
func (t *transport) answer(command any) *raft.AppendEntriesResponse {
	beat, ok := command.(*raft.AppendEntriesRequest)
	view := t.view.Load()
	if !ok || view == nil {
		return nil
	}
	v := *view
	term := v.CurrentTerm()
	if beat.Term != term || v.State() != raft.Follower {
		return nil
	}
	return &raft.AppendEntriesResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte(t.LocalAddr())},
		Term:      term, LastLog: v.LastIndex(), Success: true,
	}
}
