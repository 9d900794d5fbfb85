// Package portmux lets several protocols share one TCP listener: it reads the
// first bytes of each connection and hands it to the listener of the protocol
// that they belong to.
//
//	mux := portmux.New(listener, 4096)
//	grpcListener := mux.Route("PRI ", false) // false: the protocol reads these bytes itself
//	httpListener := mux.Fallback()
//	go grpcServer.Serve(grpcListener)
//	go httpServer.Serve(httpListener)
//	err := mux.Serve() // until Close
package portmux

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// SniffTimeout bounds the wait for a connection's first bytes. After it the
// connection is closed.
const SniffTimeout = 10 * time.Second

// Mux shares a listener. Routes are added before Serve.
type Mux struct {
	base     net.Listener
	limiter  *Limiter
	routes   []*route
	fallback *route

	closeOnce sync.Once
	closed    chan struct{}
	wg        sync.WaitGroup

	mu       sync.Mutex // guards sniffing
	sniffing map[net.Conn]struct{}
}

type route struct {
	prefix string
	strip  bool
	ln     *listener
}

// New returns a mux over ln that holds at most maxConns connections at a time,
// counted over all routes. At the limit, [Limiter] chooses which one to close.
func New(ln net.Listener, maxConns int) *Mux {
	return &Mux{
		base:     ln,
		limiter:  NewLimiter(maxConns),
		closed:   make(chan struct{}),
		sniffing: make(map[net.Conn]struct{}),
	}
}

// Route returns the listener of connections that start with prefix. With
// strip the prefix is not part of what they read.
func (m *Mux) Route(prefix string, strip bool) net.Listener {
	r := &route{prefix: prefix, strip: strip, ln: m.newListener()}
	m.routes = append(m.routes, r)
	return r.ln
}

// Fallback returns the listener of all other connections. Without one they
// are closed.
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

func (m *Mux) sniff(c *Conn) {
	m.mu.Lock()
	select {
	case <-m.closed:
		m.mu.Unlock()
		_ = c.Close() // Close has already closed what was in the list
		return
	default:
	}
	m.sniffing[c] = struct{}{}
	m.mu.Unlock()
	head, to := m.match(c.Conn)
	m.mu.Lock()
	delete(m.sniffing, c)
	m.mu.Unlock()
	if to == nil {
		_ = c.Close() // an unknown protocol
		return
	}
	c.head = head
	select {
	case to.ln.conns <- c:
	case <-to.ln.closed:
		_ = c.Close()
	case <-m.closed:
		_ = c.Close()
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
		if _, err := c.Read(one[:]); err != nil {
			return nil, nil
		}
		head = append(head, one[0])
		r, more := m.decide(string(head))
		if more {
			continue
		}
		if r == nil {
			return nil, nil
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return nil, nil
		}
		if r.strip {
			head = nil
		}
		return head, r
	}
}

func (m *Mux) decide(head string) (r *route, more bool) {
	for _, r := range m.routes {
		if head == r.prefix {
			return r, false
		}
		if len(head) < len(r.prefix) && r.prefix[:len(head)] == head {
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
