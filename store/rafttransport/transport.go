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
type Transport struct {
	*raft.NetworkTransport
	cfg     Config
	commits *commitFeed

	node  atomic.Pointer[Node] // nil until raft runs
	calls chan raft.RPC        // what the main loop takes
	// beats holds the heartbeat that was answered and that the main loop has
	// not seen; while one waits, later ones would tell it nothing.
	beats chan raft.RPC
	last  atomic.Pointer[Leader] // the last one that spoke as a leader

	closeOnce sync.Once
	closed    chan struct{}
	wg        sync.WaitGroup
}

// Config of a transport.
type Config struct {
	Streams raft.StreamLayer
	Timeout time.Duration // of one message
	Logger  hclog.Logger
	// Contacts is told which of this node's messages are answered; may be nil.
	Contacts Contacts
	// Refused is told of messages that are not given to raft; may be nil.
	Refused func(error)
	// Heartbeats, if set, makes the handler of heartbeats from raft's own.
	Heartbeats func(t *Transport, rafts func(raft.RPC)) func(raft.RPC)
}

// Contacts notes when a message was sent that a node answered in the term of its
// sender. Both methods are safe on any goroutine.
type Contacts interface {
	// Now is the present time, in nanoseconds since some origin.
	Now() int64
	// Acked notes that the node answered what was sent at that time.
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

// Attach names the raft that the transport belongs to, which is made after it.
// Before, every message goes to raft as it is.
func (t *Transport) Attach(r *raft.Raft, log raft.LogStore) { t.attach(raftNode{r, log}) }

func (t *Transport) attach(node Node) { t.node.Store(&node) }

// Advanced notes that the commit index has moved, so that followers are told. It
// does not block.
func (t *Transport) Advanced() { t.commits.advanced() }

// AppendEntries sends entries or a heartbeat, and notes when it sent what was
// answered in the leader's own term.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.cfg.Contacts == nil {
		return t.NetworkTransport.AppendEntries(id, target, args, resp)
	}
	sent := t.cfg.Contacts.Now()
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if err == nil && resp.Term == args.Term {
		t.cfg.Contacts.Acked(id, sent)
	}
	return err
}

// Consumer is what raft's main loop reads.
func (t *Transport) Consumer() <-chan raft.RPC { return t.calls }

// SetHeartbeatHandler sets the transport's own handler instead of raft's.
func (t *Transport) SetHeartbeatHandler(rafts func(raft.RPC)) {
	handler := t.heartbeat
	if t.cfg.Heartbeats != nil {
		handler = t.cfg.Heartbeats(t, rafts)
	}
	t.NetworkTransport.SetHeartbeatHandler(handler)
}

// Close ends the transport; the streams are closed by CloseStreams.
func (t *Transport) Close() error {
	t.closeOnce.Do(func() { close(t.closed) })
	err := t.NetworkTransport.Close()
	t.wg.Wait()
	return err
}

// pump brings the main loop the calls of the network transport and the
// heartbeats that were answered already.
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

// Pass gives a message to the main loop, or answers it if it may not get there;
// false: the transport was closed.
func (t *Transport) Pass(rpc raft.RPC) bool {
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
		t.hearCandidate(node, rpc.Command)
		t.followSnapshot(node, rpc.Command)
	}
	t.noteLeader(rpc.Command)
	select {
	case t.calls <- rpc:
		return true
	case <-t.closed:
		return false
	}
}

// Leader is one by its own account.
type Leader struct {
	Term uint64
	Addr raft.ServerAddress
	ID   raft.ServerID
}

// LastLeader is the last one that called, whether raft believed it or not.
func (t *Transport) LastLeader() (l Leader, ok bool) {
	if last := t.last.Load(); last != nil {
		return *last, true
	}
	return Leader{}, false
}

// Campaign has raft's main loop start an election without a pre-vote.
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

// Answer is the answer to a heartbeat of the present term while the node follows;
// nil for any other message: raft's main loop decides.
func (t *Transport) Answer(command any) *raft.AppendEntriesResponse {
	beat, ok := command.(*raft.AppendEntriesRequest)
	at := t.node.Load()
	if !ok || at == nil {
		return nil
	}
	v := *at
	term := v.CurrentTerm()
	if beat.Term != term || v.State() != raft.Follower {
		return nil
	}
	return &raft.AppendEntriesResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte(t.LocalAddr())},
		Term:      term, LastLog: v.LastIndex(), Success: true,
	}
}
