// Package portmux lets several protocols share one TCP listener: it hands each
// connection to the listener of its protocol. Without TLS the first bytes tell the
// protocol.
//
//	mux := portmux.New(listener, 4096)
//	grpcListener := mux.Route(portmux.Protocol{Prefix: "PRI ", ALPN: "h2"})
//	httpListener := mux.Fallback()
//	go grpcServer.Serve(grpcListener)
//	go httpServer.Serve(httpListener)
//	err := mux.Serve() // until Close
//
// With [Mux.TLS] the mux does the TLS handshake, the protocol negotiated by ALPN
// chooses the listener, whose connections are *tls.Conn, and connections without TLS
// are closed.
package portmux

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// SniffTimeout bounds the wait for a connection's first bytes, or its TLS handshake.
// After it the connection is closed.
const SniffTimeout = 10 * time.Second

// Mux shares a listener. TLS and the routes are set before Serve.
type Mux struct {
	base     net.Listener
	limiter  *Limiter
	turns    turns
	late     atomic.Uint64
	tls      *TLS           // nil: no TLS
	hello    func(net.Addr) // of callers with TLS on a port without; nil: nobody is told
	routes   []*route
	fallback *route

	closeOnce sync.Once
	closed    chan struct{}
	wg        sync.WaitGroup

	mu       sync.Mutex // guards sniffing
	sniffing map[net.Conn]struct{}
}

// Protocol says which connections belong to a route.
type Protocol struct {
	// Prefix is how a connection starts that has no TLS.
	Prefix string
	// Strip: the prefix is not part of what the connection reads.
	Strip bool
	// ALPN is the protocol's name in the TLS handshake, where no prefix is sent.
	ALPN string
}

type route struct {
	Protocol
	ln *listener
}

// New returns a mux over ln that holds at most maxConns connections at a time,
// counted over all routes. At the limit, [Limiter] chooses which one to close.
func New(ln net.Listener, maxConns int) *Mux {
	return &Mux{
		base:     ln,
		limiter:  NewLimiter(maxConns),
		turns:    newTurns(),
		closed:   make(chan struct{}),
		sniffing: make(map[net.Conn]struct{}),
	}
}

// PerSource bounds the connections of each source, as [Limiter.PerSource] says.
func (m *Mux) PerSource(limit int) { m.limiter.PerSource(limit) }

// WithTLS calls f for each connection that begins with a TLS handshake on a port
// without TLS, where no route takes it. f is called concurrently.
func (m *Mux) WithTLS(f func(from net.Addr)) { m.hello = f }

// Route returns the listener of a protocol's connections.
func (m *Mux) Route(p Protocol) net.Listener {
	r := &route{Protocol: p, ln: m.newListener()}
	m.routes = append(m.routes, r)
	return r.ln
}

// Fallback returns the listener of all other connections: under TLS those that
// negotiated [HTTP1], or nothing. Without a fallback they are closed.
func (m *Mux) Fallback() net.Listener {
	m.fallback = &route{ln: m.newListener()}
	return m.fallback.ln
}

func (m *Mux) newListener() *listener {
	return &listener{mux: m, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Serve accepts until Close. It returns nil after Close and the accept error otherwise.
func (m *Mux) Serve() error {
	defer m.wg.Wait()
	for {
		c, err := m.base.Accept()
		if err != nil {
			if stop, err := m.acceptFailed(err); stop {
				return err
			}
			continue
		}
		conn := m.limiter.Admit(c)
		if conn == nil {
			_ = c.Close() // at the limit
			continue
		}
		m.wg.Go(func() { m.sniff(conn) })
	}
}

// acceptFailed waits a moment after a temporary failure, such as too many open
// files. A closed listener ends the loop.
func (m *Mux) acceptFailed(err error) (stop bool, _ error) {
	select {
	case <-m.closed:
		return true, nil
	default:
	}
	if errors.Is(err, net.ErrClosed) {
		return true, fmt.Errorf("accept: %w", err)
	}
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, nil
	case <-m.closed:
		return true, nil
	}
}

// Close stops accepting and closes the connections whose protocol is not known
// yet, and every route's listener. Accepted connections stay open.
func (m *Mux) Close() error {
	var err error
	m.closeOnce.Do(func() {
		close(m.closed)
		err = m.base.Close()
		m.mu.Lock()
		conns := slices.Collect(maps.Keys(m.sniffing))
		m.mu.Unlock()
		for _, c := range conns {
			_ = c.Close() // no route has accepted it yet
		}
	})
	return err
}

// sniff finds the route of a connection, and hands it over.
func (m *Mux) sniff(c *Conn) {
	if !m.track(c) {
		_ = c.Close()
		return
	}
	var to *route
	conn := net.Conn(c)
	if m.tls != nil {
		conn, to = m.handshake(c)
	} else {
		c.head, to = m.match(c.Conn)
	}
	m.mu.Lock()
	delete(m.sniffing, c)
	m.mu.Unlock()
	if to == nil {
		m.unknown(c)
		return
	}
	select {
	case to.ln.conns <- conn:
	case <-to.ln.closed:
		_ = c.Close()
	case <-m.closed:
		_ = c.Close()
	}
}

// handshakeRecord is how a TLS handshake begins.
const handshakeRecord = 0x16

// unknown closes a connection of an unknown protocol.
func (m *Mux) unknown(c *Conn) {
	if m.hello != nil && len(c.head) > 0 && c.head[0] == handshakeRecord {
		m.hello(c.RemoteAddr())
	}
	_ = c.Close()
}

// track adds a connection to those that Close closes; false after Close.
func (m *Mux) track(c *Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
		return false
	default:
		m.sniffing[c] = struct{}{}
		return true
	}
}

// match reads byte by byte until one route is left.
func (m *Mux) match(c net.Conn) ([]byte, *route) {
	if err := c.SetReadDeadline(time.Now().Add(SniffTimeout)); err != nil {
		return nil, nil
	}
	var head []byte
	for {
		var one [1]byte
		if _, err := io.ReadFull(c, one[:]); err != nil {
			m.countLate(err)
			return nil, nil
		}
		head = append(head, one[0])
		r, more := m.decide(string(head))
		if more {
			continue
		}
		if r == nil {
			return head, nil
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return nil, nil
		}
		if r.Strip {
			head = nil
		}
		return head, r
	}
}

// countLate counts a connection that ended by its deadline.
func (m *Mux) countLate(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		m.late.Add(1)
	}
}

func (m *Mux) decide(head string) (r *route, more bool) {
	for _, r := range m.routes {
		if head == r.Prefix {
			return r, false
		}
		if strings.HasPrefix(r.Prefix, head) {
			more = true
		}
	}
	if more {
		return nil, true
	}
	return m.fallback, false
}

// listener is the listener of one route.
type listener struct {
	mux       *Mux
	conns     chan net.Conn
	closeOnce sync.Once
	closed    chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
	case <-l.mux.closed:
	}
	return nil, net.ErrClosed
}

// Close closes this route only.
func (l *listener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.mux.base.Addr() }
