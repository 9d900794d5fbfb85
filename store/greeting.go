package store

import (
	"cmp"
	"io"
	"net"
	"sync"
	"time"

	"github.com/werbenhu/registry/store/portmux"
)

// greetings are the connections that have not said their cluster's id yet.
// Only those of the own cluster reach raft, which keeps 256 KiB and a goroutine
// for each, and of these at most maxStreams.
type greetings struct {
	greeted chan net.Conn
	ended   chan struct{} // closed with the listener
	err     error         // set before ended is closed
	silent  *portmux.Crowd
	streams *portmux.Crowd
	wg      sync.WaitGroup
}

const (
	// idleLimit is far above raft's heartbeat interval. A pooled connection
	// that was idle for longer costs its owner one failed call, and then a new dial.
	idleLimit = 5 * time.Minute
	// greetingLimit is how long a caller may take to say its cluster's id.
	greetingLimit = 10 * time.Second
	// maxStreams bounds raft's connections; a peer has about five.
	maxStreams = 512
	// maxGreetings bounds those that have not said their cluster's id.
	maxGreetings = 1024
)

// newStreamLayer starts to greet; Close ends it.
func newStreamLayer(l *streamLayer) *streamLayer {
	l.greeted, l.ended = make(chan net.Conn), make(chan struct{})
	l.silent, l.streams = portmux.NewCrowd(maxGreetings), portmux.NewCrowd(maxStreams)
	l.wg.Go(l.welcome)
	return l
}

// Close closes the listener and all connections that came by it.
func (l *streamLayer) Close() error {
	err := l.Listener.Close()
	<-l.ended
	l.silent.CloseAll()
	l.streams.CloseAll()
	l.wg.Wait()
	return err
}

// Accept returns the next connection whose caller belongs to this cluster. It
// has a rolling read deadline, so that a peer that vanished without a word does
// not hold a goroutine for ever.
func (l *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.greeted:
		return c, nil
	case <-l.ended:
		return nil, l.err
	}
}

// welcome greets connections side by side: who is slow to say its cluster's id
// holds up nobody. The listener bounds how many there are.
func (l *streamLayer) welcome() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			l.err = err
			close(l.ended)
			return
		}
		l.wg.Go(func() { l.greet(c) })
	}
}

func (l *streamLayer) greet(c net.Conn) {
	silent := l.silent.Admit(c)
	if silent == nil || l.over() || !l.belongs(silent) {
		_ = c.Close() // no word of why: the caller tries again, until this node belongs
		return
	}
	stream := l.streams.Admit(c)
	silent.Leave()
	if stream == nil || l.over() {
		_ = c.Close() // too many
		return
	}
	select {
	case l.greeted <- &deadlineConn{Conn: stream, lost: l.lost, limit: cmp.Or(l.idle, idleLimit)}:
	case <-l.ended:
		_ = stream.Close()
	}
}

// over says that Close may have gone over the connections already.
func (l *streamLayer) over() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// belongs reads the cluster id and compares it.
func (l *streamLayer) belongs(c net.Conn) bool {
	if err := c.SetReadDeadline(time.Now().Add(greetingLimit)); err != nil {
		return false
	}
	id := make([]byte, clusterIDLength)
	if _, err := io.ReadFull(c, id); err != nil {
		return false
	}
	own := l.cluster()
	if string(id) == own {
		return true
	}
	if own != "" {
		l.stranger(string(id))
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
