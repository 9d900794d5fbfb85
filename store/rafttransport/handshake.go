package rafttransport

import (
	"cmp"
	"io"
	"net"
	"sync"
	"time"

	"github.com/werbenhu/registry/store/portmux"
)

// handshakes are the connections that have not sent their cluster's id yet.
// Only those of the own cluster reach raft, which keeps 256 KiB and a goroutine
// for each, and of these at most MaxStreams.
type handshakes struct {
	accepted    chan net.Conn
	ended       chan struct{} // closed with the listener
	err         error         // set before ended is closed
	pending     *portmux.Limiter
	established *portmux.Limiter
	wg          sync.WaitGroup
}

const (
	// idleLimit is far above raft's heartbeat interval. A pooled connection
	// that was idle for longer costs its owner one failed call, and then a new dial.
	idleLimit = 5 * time.Minute
	// handshakeLimit is how long a caller may take to send its cluster's id.
	handshakeLimit = 10 * time.Second
	// MaxStreams bounds raft's connections; a peer has about five.
	MaxStreams = 512
	// maxHandshakes bounds those that have not sent their cluster's id.
	maxHandshakes = 1024
)

// NewStreams starts to accept connections; Close ends that.
func NewStreams(cfg StreamsConfig) *Streams {
	l := &Streams{cfg: cfg}
	l.accepted, l.ended = make(chan net.Conn), make(chan struct{})
	l.pending, l.established = portmux.NewLimiter(maxHandshakes), portmux.NewLimiter(MaxStreams)
	l.wg.Go(l.acceptLoop)
	return l
}

// Close closes the listener and all connections that came by it.
func (l *Streams) Close() error {
	err := l.cfg.Listener.Close()
	<-l.ended
	l.pending.CloseAll()
	l.established.CloseAll()
	l.wg.Wait()
	return err
}

// Accept returns the next connection whose caller belongs to this cluster. It
// has a rolling read deadline, so that a peer that vanished without a word does
// not hold a goroutine for ever.
func (l *Streams) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.ended:
		return nil, l.err
	}
}

// acceptLoop runs the handshakes side by side: a slow one delays no other. The
// listener bounds how many there are.
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
	if pending == nil || l.over() || !l.belongs(pending) {
		_ = c.Close() // no word of why: the caller tries again, until this node belongs
		return
	}
	stream := l.established.Admit(c)
	pending.Leave()
	if stream == nil || l.over() {
		_ = c.Close() // too many
		return
	}
	select {
	case l.accepted <- &deadlineConn{Conn: stream, lost: l.cfg.Lost, limit: cmp.Or(l.cfg.Idle, idleLimit)}:
	case <-l.ended:
		_ = stream.Close()
	}
}

// over says that Close may have gone over the connections already.
func (l *Streams) over() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// belongs reads the cluster id and compares it.
func (l *Streams) belongs(c net.Conn) bool {
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

// deadlineConn ends when its caller says nothing for so long.
type deadlineConn struct {
	net.Conn
	lost  func() // told when it is closed; may be nil
	limit time.Duration
}

func (c *deadlineConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Close is called by raft when reading or writing failed.
func (c *deadlineConn) Close() error {
	err := c.Conn.Close()
	if c.lost != nil {
		c.lost()
	}
	return err
}
