package portmux

import (
	"container/list"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
)

// Limiter bounds the connections of a port. At the limit it closes one for each
// new one: first the oldest pending connection, which nothing was ever written
// to, because a caller with a valid request is answered within a round trip. If
// none is pending, the source with the most connections loses one, an idle one
// if it has any. So nobody can keep a node or a client out by holding
// connections, only by using them from as many sources. A source may have a limit
// of its own, at which it loses one of its own connections in the same order.
//
// Example: at a limit of 4,096 there are 4,090 silent connections and 6 of peers.
// The 4,097th connection replaces the oldest of the 4,090.
type Limiter struct {
	limit     int
	perSource int

	mu      sync.Mutex // guards the rest
	size    int
	full    uint64             // times that a connection was closed at limit
	crowded uint64             // times that one was closed at perSource
	pending *list.List         // of *Conn, never written to, oldest first
	sources map[string]*source // of all connections
}

// source is where connections come from: see Source.
type source struct {
	name        string
	local       bool // this machine
	size        int
	pending     *list.List // of *Conn, never written to, oldest first
	established *list.List // of *Conn, written to; the next to check first
}

// NewLimiter returns a limiter of at most limit connections, and at least one. A source
// may have all of them; see PerSource.
func NewLimiter(limit int) *Limiter {
	limit = max(limit, 1)
	return &Limiter{limit: limit, perSource: limit, pending: list.New(), sources: make(map[string]*source)}
}

// PerSource bounds the connections of each source but this machine, where all
// programs, and a proxy's clients, are one source. It is called before Admit.
func (l *Limiter) PerSource(limit int) { l.perSource = max(limit, 1) }

// Conn is a connection that counts against a limit.
type Conn struct {
	net.Conn
	head    []byte // read to find the route, not yet returned by Read
	limiter *Limiter

	turns turns // not nil: in the TLS handshake, whose writes answer no request

	active      atomic.Bool // read or written since the limiter last checked
	established atomic.Bool // written to; changes under the limiter's lock

	source  *source       // guarded by the limiter
	at      *list.Element // guarded by the limiter; nil: removed
	waiting *list.Element // in source.pending; guarded by the limiter
}

// Admit adds a connection. At a limit it closes another one, or returns nil if none may
// be closed for it. The caller closes the result.
func (l *Limiter) Admit(from net.Conn) *Conn {
	c := &Conn{Conn: from, limiter: l}
	name, local := Source(c.RemoteAddr())
	l.mu.Lock()
	s := l.sources[name]
	if s == nil {
		s = &source{name: name, local: local, pending: list.New(), established: list.New()}
	}
	evicted, ok := l.roomLocked(s)
	if !ok {
		l.mu.Unlock()
		return nil
	}
	l.sources[name] = s // again if its last connection was just removed
	s.size++
	l.size++
	c.source, c.at, c.waiting = s, l.pending.PushBack(c), s.pending.PushBack(c)
	l.mu.Unlock()
	if evicted != nil {
		_ = Abort(evicted.Conn) // its reader sees the error
	}
	return c
}

// roomLocked makes room for a new connection. It returns the connection that was removed
// for it, if any, and the caller closes.
func (l *Limiter) roomLocked(newcomer *source) (evicted *Conn, ok bool) {
	switch {
	case !newcomer.local && newcomer.size >= l.perSource:
		l.crowded++
		if e := newcomer.pending.Front(); e != nil {
			evicted = e.Value.(*Conn)
		} else {
			evicted = newcomer.idle()
		}
	case l.size >= l.limit:
		l.full++
		evicted = l.victimLocked(newcomer)
	default:
		return nil, true
	}
	if evicted == nil {
		return nil, false
	}
	l.removeLocked(evicted)
	return evicted, true
}

// Size is the number of connections.
func (l *Limiter) Size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// CloseAll closes all connections.
func (l *Limiter) CloseAll() {
	l.mu.Lock()
	var all []*Conn
	for e := l.pending.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*Conn))
	}
	for _, s := range l.sources {
		for e := s.established.Front(); e != nil; e = e.Next() {
			all = append(all, e.Value.(*Conn))
		}
	}
	l.mu.Unlock()
	for _, c := range all {
		c.Leave()
		_ = Abort(c.Conn) // their readers see the error
	}
}

// Abort closes a connection without TLS's last message, which waits for a caller that
// reads nothing.
func Abort(c net.Conn) error {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn().Close()
	}
	return c.Close()
}

// maxIdleChecks bounds the connections checked to find an idle one.
const maxIdleChecks = 32

// victimLocked is the connection to close for a new one of that source, or nil.
func (l *Limiter) victimLocked(newcomer *source) *Conn {
	if e := l.pending.Front(); e != nil {
		return e.Value.(*Conn)
	}
	most := newcomer
	for _, s := range l.sources {
		if s.size > most.size {
			most = s
		}
	}
	if c := most.idle(); c != nil {
		return c
	}
	if most.size > newcomer.size+1 {
		return most.established.Front().Value.(*Conn)
	}
	return nil
}

// idle is a connection that was not used since the last check, or nil.
func (s *source) idle() *Conn {
	for range min(maxIdleChecks, s.established.Len()) {
		e := s.established.Front()
		if c := e.Value.(*Conn); !c.active.Swap(false) {
			return c
		}
		s.established.MoveToBack(e)
	}
	return nil
}

func (l *Limiter) removeLocked(c *Conn) {
	if c.at == nil {
		return
	}
	if c.established.Load() {
		c.source.established.Remove(c.at)
	} else {
		l.pending.Remove(c.at)
		c.source.pending.Remove(c.waiting)
	}
	c.at = nil
	l.size--
	if c.source.size--; c.source.size == 0 {
		delete(l.sources, c.source.name)
	}
}

// establish notes the first write to a connection.
func (l *Limiter) establish(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.at == nil || c.established.Load() {
		return
	}
	l.pending.Remove(c.at)
	c.source.pending.Remove(c.waiting)
	c.established.Store(true)
	c.at = c.source.established.PushBack(c)
}

// Read returns first what was read to find the route.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	if c.turns != nil {
		c.turns.end()
		defer c.turns.begin()
	}
	n, err := c.Conn.Read(p)
	if n > 0 && !c.active.Load() {
		c.active.Store(true)
	}
	return n, err
}

// Write establishes the connection: its caller sent something that has an answer.
func (c *Conn) Write(p []byte) (int, error) {
	if c.turns != nil {
		c.turns.end()
		defer c.turns.begin()
	} else if !c.established.Load() {
		c.limiter.establish(c)
	}
	if !c.active.Load() {
		c.active.Store(true)
	}
	return c.Conn.Write(p)
}

// Close closes the connection and removes it from the limiter.
func (c *Conn) Close() error {
	c.Leave()
	return c.Conn.Close()
}

// Leave removes the connection from the limiter and leaves it open.
func (c *Conn) Leave() {
	c.limiter.mu.Lock()
	defer c.limiter.mu.Unlock()
	c.limiter.removeLocked(c)
}
