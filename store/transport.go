package store

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// streamLayer carries raft's connections. Its address is the advertised name,
// and a name is resolved at every dial: a container may come back elsewhere.
//
// A connection starts with the id of the cluster that the caller belongs to,
// and only calls of the own cluster are answered. So a node that belongs to
// none, because it is new or because it was wiped and forgot its votes,
// neither votes nor follows before it was taken in; and clusters that meet by a
// mistake in their addresses do not mix.
type streamLayer struct {
	net.Listener
	advertise string
	dial      func(address string, timeout time.Duration) (net.Conn, error)
	cluster   func() string     // the own cluster's id; empty: none
	stranger  func(from string) // told of calls from another cluster
	failed    <-chan struct{}   // closed when the node has failed; may be nil
	lost      func()            // told when a connection of the own cluster ends
	idle      time.Duration     // how long a connection may be silent; 0: idleLimit

	greetings
}

func (l *streamLayer) Addr() net.Addr { return nameAddr(l.advertise) }

func (l *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	own := l.cluster()
	if len(own) != clusterIDLength {
		return nil, errNoCluster
	}
	c, err := l.dial(string(address), timeout)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.SetWriteDeadline(time.Now().Add(timeout)), writeAll(c, own), c.SetWriteDeadline(time.Time{})); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &callingConn{Conn: c, failed: l.failed}, nil
}

// callingConn sends nothing any more when the node has failed. A leader that
// hangs in a write would otherwise go on with its heartbeats, and nobody would
// take over from it until its process is gone.
type callingConn struct {
	net.Conn
	failed <-chan struct{}
}

func (c *callingConn) Write(p []byte) (int, error) {
	select {
	case <-c.failed:
		return 0, errors.Join(errFailed, c.Close())
	default:
		return c.Conn.Write(p)
	}
}

var errFailed = errors.New("this node has failed and ends")

func writeAll(c net.Conn, s string) error {
	_, err := c.Write([]byte(s))
	return err
}

var errNoCluster = errors.New("this node belongs to no cluster yet")

// nameAddr is a network address that stays a name.
type nameAddr string

func (nameAddr) Network() string  { return "tcp" }
func (a nameAddr) String() string { return string(a) }

// AppendEntries sends entries or a heartbeat, and notes when it sent what was
// answered in the leader's own term.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := t.fresh.now()
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if err == nil && resp.Term == args.Term {
		t.fresh.acked(id, sent)
	}
	return err
}

// AppendEntriesPipeline returns a pipeline whose answers are always taken. When
// raft sees an answer that ends a pipeline, it stops to read answers at once,
// but goes on sending until it notices. In raft's own pipeline the sender then
// waits for a place that the next answer should free, which nobody takes: the
// follower gets no more entries, and Shutdown waits for ever.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(t.commits.follow(inner)), nil
}

type pipeline struct {
	raft.AppendPipeline
	answers   chan raft.AppendFuture
	closeOnce sync.Once
	closed    chan struct{}
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.pump() // until Close
	return p
}

// pump holds the answers that raft has not read, which are few: raft reads
// them as they come, until it ends the pipeline.
func (p *pipeline) pump() {
	var held []raft.AppendFuture
	for {
		var first raft.AppendFuture
		var out chan<- raft.AppendFuture
		if len(held) > 0 {
			first, out = held[0], p.answers
		}
		select {
		case f := <-p.AppendPipeline.Consumer():
			held = append(held, f)
		case out <- first:
			held = held[1:]
		case <-p.closed:
			return
		}
	}
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.closeOnce.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}
