package rafttransport

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Transport is raft's network transport with another fast path for heartbeats.
//
// raft's fast path runs the append handler, which belongs to the main loop, on the
// connection's goroutine. A newer leader's heartbeat can then raise the term while a
// deposed leader is in the middle of a write, and the entries are stored under a term
// that is not their leader's. It is not enough to pass only heartbeats of the current
// term to a follower: the node may start an election between that check and the
// handler's own, and the handler then overwrites the term of the node's vote with
// the old term, on disk too.
//
// Here the transport itself answers a heartbeat of the current term. It reads raft's
// state and never changes it. The heartbeat then also goes to the main loop, which
// records the contact. All other messages go to the main loop only. So a follower
// whose main loop waits for its disk still answers. The answer only states that the
// node's term was not newer than the leader's after the heartbeat came; raft uses it
// for the leader lease and for VerifyLeader, and for both that is enough. A contact
// that the main loop has not recorded yet is not missed: the main loop also checks
// the election timer, and records the contact first after a long write.
//
// Embedding keeps pre-vote, which raft detects by the transport's type.
type Transport struct {
	*raft.NetworkTransport
	cfg     Config
	commits *commitFeed

	node  atomic.Pointer[Node] // nil until raft runs
	calls chan raft.RPC        // to the main loop
	// beats holds one answered heartbeat that the main loop has not received; while
	// it waits, later ones are dropped.
	beats chan raft.RPC
	last  atomic.Pointer[Leader] // sender of the last append request

	sentHeartbeats sentHeartbeats

	closeOnce sync.Once
	closed    chan struct{}
	wg        sync.WaitGroup
}

// Config of a transport.
type Config struct {
	Streams raft.StreamLayer
	Timeout time.Duration // of one message
	Logger  hclog.Logger
	// Contacts records the answers to this node's messages; may be nil.
	Contacts Contacts
	// Refused is called for messages that are not passed to raft; may be nil.
	Refused func(error)
	// Heartbeats, if set, replaces the handler of heartbeats.
	Heartbeats func(t *Transport, rafts func(raft.RPC)) func(raft.RPC)
}

// Contacts records the send times of messages that were answered in the sender's
// term. Both methods are safe for concurrent use.
type Contacts interface {
	// Now is the current time, in nanoseconds since some origin.
	Now() int64
	// Acked records that the node answered a message sent at that time.
	Acked(node raft.ServerID, sent int64)
}

var _ raft.WithPreVote = &Transport{}

// New starts a transport, which Close ends.
func New(cfg Config) *Transport {
	t := &Transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: cfg.Streams, MaxPool: maxPool, Timeout: cfg.Timeout, Logger: cfg.Logger, MsgpackUseNewTimeFormat: true,
		}),
		cfg: cfg, calls: make(chan raft.RPC), beats: make(chan raft.RPC, 1), closed: make(chan struct{}),
	}
	t.commits = newCommitFeed(&t.node)
	t.wg.Go(t.pump)
	return t
}

// maxPool is how many idle connections to each node are kept.
const maxPool = 3

// Attach sets the transport's raft, which is created after it. Before, messages are
// passed to raft unchecked.
func (t *Transport) Attach(r *raft.Raft, log raft.LogStore) { t.attach(raftNode{r, log}) }

func (t *Transport) attach(node Node) { t.node.Store(&node) }

// Advanced announces the new commit index to the followers. It does not block.
func (t *Transport) Advanced() { t.commits.advanced() }

// Writing offers the followers entries that this node is about to write to its log. It
// does not block.
func (t *Transport) Writing(logs []*raft.Log) { t.commits.writing(logs) }

// Wrote notes the last of the entries that this node has written to its log. It
// does not block.
func (t *Transport) Wrote(index uint64) { t.commits.wroteUpTo(index) }

// AppendEntries sends entries or a heartbeat, and records its send time if it was
// answered in the leader's own term. If entries could not be sent, it returns when the
// node answers heartbeats again; see awaitReturn.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	var sent int64
	if t.cfg.Contacts != nil {
		sent = t.cfg.Contacts.Now()
	}
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if t.cfg.Contacts != nil && err == nil && resp.Term == args.Term {
		t.cfg.Contacts.Acked(id, sent)
	}
	switch {
	case isHeartbeat(args):
		t.sentHeartbeats.end(id, err == nil)
	case err != nil:
		t.awaitReturn(id, args.Term)
	}
	return err
}

// Consumer is the channel that raft's main loop receives from.
func (t *Transport) Consumer() <-chan raft.RPC { return t.calls }

// SetHeartbeatHandler sets the transport's own handler instead of raft's.
func (t *Transport) SetHeartbeatHandler(rafts func(raft.RPC)) {
	handler := t.heartbeat
	if t.cfg.Heartbeats != nil {
		handler = t.cfg.Heartbeats(t, rafts)
	}
	t.NetworkTransport.SetHeartbeatHandler(handler)
}

// Close stops the transport; CloseStreams closes the streams.
func (t *Transport) Close() error {
	t.closeOnce.Do(func() { close(t.closed) })
	err := t.NetworkTransport.Close()
	t.wg.Wait()
	return err
}

// pump passes to the main loop the calls of the network transport and the heartbeats
// that were answered already.
func (t *Transport) pump() {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-t.NetworkTransport.Consumer():
		case rpc = <-t.beats:
		case <-t.closed:
			return
		}
		if !t.Pass(rpc) {
			return
		}
	}
}

// Pass passes a message to the main loop, or answers it itself if raft must not
// receive it; false: the transport was closed.
func (t *Transport) Pass(rpc raft.RPC) bool {
	limitCommit(rpc.Command)
	if at := t.node.Load(); at != nil {
		node := *at
		if err := checkCall(node.CurrentTerm(), rpc.Command); err != nil {
			if t.cfg.Refused != nil {
				t.cfg.Refused(err)
			}
			rpc.Respond(nil, err)
			return true
		}
		if t.redundant(node, rpc) {
			return true
		}
		t.admitCandidate(node, rpc.Command)
		t.continueAfterSnapshot(node, rpc.Command)
	}
	t.noteLeader(rpc.Command)
	select {
	case t.calls <- rpc:
		return true
	case <-t.closed:
		return false
	}
}

// Leader is the sender of an append request.
type Leader struct {
	Term uint64
	Addr raft.ServerAddress
	ID   raft.ServerID
}

// LastLeader is the sender of the last append request, whether raft accepted it or not.
func (t *Transport) LastLeader() (l Leader, ok bool) {
	if last := t.last.Load(); last != nil {
		return *last, true
	}
	return Leader{}, false
}

// Campaign makes raft start an election without a pre-vote.
func (t *Transport) Campaign() {
	t.Pass(raft.RPC{
		Command:  &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}},
		RespChan: make(chan raft.RPCResponse, 1),
	})
}

func (t *Transport) noteLeader(command any) {
	m, ok := command.(*raft.AppendEntriesRequest)
	if !ok {
		return
	}
	if last := t.last.Load(); last == nil || last.Term != m.Term {
		t.last.Store(&Leader{m.Term, raft.ServerAddress(m.Addr), raft.ServerID(m.ID)})
	}
}

// heartbeat runs on the connection's goroutine.
func (t *Transport) heartbeat(rpc raft.RPC) {
	resp := t.Answer(rpc.Command)
	if resp == nil {
		t.Pass(rpc)
		return
	}
	t.noteLeader(rpc.Command)
	rpc.Respond(resp, nil)
	select {
	case t.beats <- raft.RPC{Command: rpc.Command, RespChan: make(chan raft.RPCResponse, 1)}:
	default:
	}
}

// Answer is the answer to a heartbeat of the current term to a follower; nil for any
// other message, which raft's main loop answers.
func (t *Transport) Answer(command any) *raft.AppendEntriesResponse {
	beat, ok := command.(*raft.AppendEntriesRequest)
	at := t.node.Load()
	if !ok || at == nil {
		return nil
	}
	node := *at
	term := node.CurrentTerm()
	if beat.Term != term || node.State() != raft.Follower {
		return nil
	}
	return &raft.AppendEntriesResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte(t.LocalAddr())},
		Term:      term, LastLog: node.LastIndex(), Success: true,
	}
}
