package rafttransport

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

type noStreams struct{ net.Listener }

func (noStreams) Accept() (net.Conn, error)                                { return nil, net.ErrClosed }
func (noStreams) Close() error                                             { return nil }
func (noStreams) Addr() net.Addr                                           { return nameAddr("n1:7370") }
func (noStreams) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) { return nil, net.ErrClosed }

func TestStreamLayerKeepsNames(t *testing.T) {
	var dialled []string
	l := NewStreams(StreamsConfig{Listener: noStreams{}, Advertise: "node-1.example:7370", Dial: func(_ context.Context, address string) (net.Conn, error) {
		dialled = append(dialled, address)
		return nil, net.ErrClosed
	}, ClusterID: func() string { return strings.Repeat("c", ClusterIDSize) }})
	if l.Addr().String() != "node-1.example:7370" || l.Addr().Network() != "tcp" {
		t.Errorf("address %s/%s", l.Addr().Network(), l.Addr())
	}
	for range 2 { // a name is resolved at each dial
		_, _ = l.Dial("node-2.example:7370", time.Second)
	}
	if len(dialled) != 2 || dialled[0] != "node-2.example:7370" {
		t.Errorf("dialled %v", dialled)
	}
}

// Close ends dials and connections of this node, and later ones.
func TestCloseEndsOutboundStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer func() { _ = there.Close() }()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		l := NewStreams(StreamsConfig{Listener: noStreams{}, ClusterID: func() string { return strings.Repeat("c", ClusterIDSize) }, Dial: func(ctx context.Context, address string) (net.Conn, error) {
			if address == "n2:7370" {
				return here, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		c, err := l.Dial("n2:7370", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 2)
		go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
		go func() { _, err := l.Dial("n3:7370", time.Minute); ended <- err }()
		synctest.Wait()
		began := time.Now()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("it ended with %v", err)
			}
		}
		if _, err := l.Dial("n3:7370", time.Minute); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a later dial: %v", err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		_ = c.Close()
	})
}

func TestSilentRaftConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer func() { _ = there.Close() }()
		c := &deadlineConn{Conn: here, limit: idleLimit}
		start := time.Now()
		go func() {
			for range 3 {
				after(idleLimit - time.Second)
				_, _ = there.Write([]byte{1})
			}
		}()
		var one [1]byte
		for range 3 {
			if _, err := c.Read(one[:]); err != nil {
				t.Fatalf("after %s: %v", time.Since(start), err)
			}
		}
		spoke := time.Now()
		if _, err := c.Read(one[:]); err == nil || time.Since(spoke) != idleLimit {
			t.Errorf("silence of %s ends with %v", time.Since(spoke), err)
		}
	})
}

// stuckPipeline returns answers one by one, as raft's pipeline does: there is no room
// for the next request until the last answer was received.
type stuckPipeline struct {
	raft.AppendPipeline
	done   chan raft.AppendFuture
	closed bool
}

func (p *stuckPipeline) Consumer() <-chan raft.AppendFuture { return p.done }
func (p *stuckPipeline) Close() error                       { p.closed = true; return nil }

type answer struct {
	raft.AppendFuture
	n int
}

func (answer) Request() *raft.AppendEntriesRequest { return new(raft.AppendEntriesRequest) }

func TestPipelineReceivesEveryAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &stuckPipeline{done: make(chan raft.AppendFuture)}
		feed, _ := newFeed()
		p := newPipeline(feed.follow(inner))
		sent := 0
		go func() {
			for ; sent < 10; sent++ {
				inner.done <- answer{n: sent}
			}
		}()
		synctest.Wait()
		if sent != 10 {
			t.Fatalf("the sender waits after %d answers that raft did not receive", sent)
		}
		for i := range 9 {
			if got := (<-p.Consumer()).(answer); got.n != i {
				t.Errorf("answer %d came as number %d", got.n, i)
			}
		}
		if err := p.Close(); err != nil || !inner.closed {
			t.Errorf("closed %t, %v", inner.closed, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Only calls of the own cluster are accepted, and none before the node has a cluster.
func TestRaftCallsOfAnotherClusterAreRefused(t *testing.T) {
	a, b := strings.Repeat("a", ClusterIDSize), strings.Repeat("b", ClusterIDSize)
	for _, tc := range []struct {
		name, own, caller string
		accepted          bool
		foreign           int
	}{
		{"own cluster", a, a, true, 0},
		{"another cluster", a, b, false, 1},
		{"no cluster yet", "", b, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			here, there := net.Pipe()
			defer func() { _ = there.Close() }()
			foreign := 0
			callee := NewStreams(StreamsConfig{
				Listener:  newOneConn(here),
				ClusterID: func() string { return tc.own }, Foreign: func(string) { foreign++ },
			})
			caller := NewStreams(StreamsConfig{Listener: noStreams{}, ClusterID: func() string { return tc.caller }, Dial: func(context.Context, string) (net.Conn, error) { return there, nil }})
			go func() {
				if c, err := caller.Dial("n2:7370", time.Second); err == nil {
					_, _ = c.Write([]byte{7})
				}
			}()
			var one [1]byte
			if tc.accepted {
				c, err := callee.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(one[:]); err != nil || one[0] != 7 {
					t.Errorf("read %v, %v", one, err)
				}
			} else if _, err := there.Read(one[:]); err != io.EOF && err != io.ErrClosedPipe { // the caller closes its end, too
				t.Errorf("not closed: %v", err)
			}
			if err := callee.Close(); err != nil {
				t.Error(err)
			}
			if _, err := callee.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept after Close: %v", err)
			}
			if foreign != tc.foreign {
				t.Errorf("%d foreign calls", foreign)
			}
		})
	}
	if _, err := NewStreams(StreamsConfig{Listener: noStreams{}, ClusterID: func() string { return "" }}).Dial("n2:7370", time.Second); !errors.Is(err, ErrNoCluster) {
		t.Errorf("a node of no cluster dials: %v", err)
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
}

func newOneConn(c net.Conn) *oneConn {
	l := &oneConn{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- c
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error { close(l.closed); return nil }
