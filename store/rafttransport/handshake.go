package rafttransport

import (
	"cmp"
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/werbenhu/registry/store/portmux"
)

// handshakes reads the cluster id of each new connection. Only connections from the
// own cluster reach raft, and at most MaxStreams: raft keeps 256 KiB and a goroutine
// for each.
type handshakes struct {
	accepted    chan net.Conn
	ended       chan struct{} // closed with the listener
	err         error         // set before ended is closed
	pending     *portmux.Limiter
	established *portmux.Limiter
	wg          sync.WaitGroup
}

const (
	// idleLimit is far above raft's heartbeat interval. A call on a pooled connection
	// that was idle for longer fails, and the caller dials again.
	idleLimit = 5 * time.Minute
	// handshakeLimit is how long a caller may take to send its cluster's id.
	handshakeLimit = 10 * time.Second
	// MaxStreams bounds raft's connections; a peer has about five.
	MaxStreams = 512
	// maxHandshakes bounds the connections that have not sent a cluster id.
	maxHandshakes = 1024
)

// NewStreams starts to accept connections, until Close.
func NewStreams(cfg StreamsConfig) *Streams {
	l := &Streams{cfg: cfg}
	l.open, l.end = context.WithCancel(context.Background())
	l.accepted, l.ended = make(chan net.Conn), make(chan struct{})
	l.pending, l.established = portmux.NewLimiter(maxHandshakes), portmux.NewLimiter(MaxStreams)
	l.wg.Go(l.acceptLoop)
	return l
}

// Close closes the listener and all connections.
func (l *Streams) Close() error {
	err := l.cfg.Listener.Close()
	l.end()
	<-l.ended
	l.pending.CloseAll()
	l.established.CloseAll()
	l.wg.Wait()
	return err
}

// Accept returns the next connection from this cluster. It has a rolling read
// deadline, so that a peer that vanished does not hold a goroutine for ever.
func (l *Streams) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.ended:
		return nil, l.err
	}
}

// acceptLoop runs the handshakes concurrently: a slow one delays no other.
func (l *Streams) acceptLoop() {
	for {
		c, err := l.cfg.Listener.Accept()
		if err != nil {
			l.err = err
			close(l.ended)
			return
		}
		l.wg.Go(func() { l.handshake(c) })
	}
}

func (l *Streams) handshake(c net.Conn) {
	pending := l.pending.Admit(c)
	if pending == nil || l.closed() || !l.readClusterID(pending) {
		_ = c.Close() // without a reason: the caller retries until this node has joined
		return
	}
	stream := l.established.Admit(c)
	pending.Leave()
	if stream == nil || l.closed() {
		_ = c.Close() // at the limit
		return
	}
	select {
	case l.accepted <- &deadlineConn{Conn: stream, lost: l.cfg.Lost, limit: cmp.Or(l.cfg.Idle, idleLimit)}:
	case <-l.ended:
		_ = stream.Close()
	}
}

// closed reports whether Close may already have closed all connections.
func (l *Streams) closed() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// readClusterID reads the cluster id and reports whether it is the own one.
func (l *Streams) readClusterID(c net.Conn) bool {
	if err := c.SetReadDeadline(time.Now().Add(handshakeLimit)); err != nil {
		return false
	}
	id := make([]byte, ClusterIDSize)
	if _, err := io.ReadFull(c, id); err != nil {
		return false
	}
	own := l.cfg.ClusterID()
	if string(id) == own {
		return true
	}
	if own != "" {
		l.cfg.Foreign(string(id))
	}
	return false
}

// deadlineConn fails a read that takes longer than limit.
type deadlineConn struct {
	net.Conn
	lost  func() // called by Close; may be nil
	limit time.Duration
}

func (c *deadlineConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Close is called by raft after a failed read or write.
func (c *deadlineConn) Close() error {
	err := c.Conn.Close()
	if c.lost != nil {
		c.lost()
	}
	return err
}
