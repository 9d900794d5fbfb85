package portmux

import (
	"container/list"
	"net"
	"sync"
	"sync/atomic"
)

// Limiter bounds the connections of a port. At the limit it closes one for each
// new one: first the oldest pending connection, which nothing was ever written
// to, because a caller with a valid request is answered within a round trip. If
// none is pending, the source with the most connections loses one, an idle one
// if it has any. So nobody can keep a node or a client out by holding
// connections, only by using them from as many sources.
//
// Example: at a limit of 4,096 there are 4,090 silent connections and 6 of peers.
// The 4,097th connection replaces the oldest of the 4,090.
type Limiter struct {
	limit int

	mu      sync.Mutex // guards the rest
	size    int
	pending *list.List         // of *Conn, never written to, oldest first
	sources map[string]*source // of all connections
}

// source is an IP address that connections come from.
type source struct {
	name        string
	size        int
	established *list.List // of *Conn, written to; the next to check first
}

// NewLimiter returns a limiter of at most limit connections, and at least one.
func NewLimiter(limit int) *Limiter {
	return &Limiter{limit: max(limit, 1), pending: list.New(), sources: make(map[string]*source)}
}

// Conn is a connection that counts against a limit.
type Conn struct {
	net.Conn
	head    []byte // read to find the route, not yet returned by Read
	limiter *Limiter

	active      atomic.Bool // read or written since the limiter last checked
	established atomic.Bool // written to; changes under the limiter's lock

	source *source       // guarded by the limiter
	at     *list.Element // guarded by the limiter; nil: removed
}

// Admit adds a connection. At the limit it closes another one, or returns nil if
// none may be closed for it. The caller closes the result.
func (l *Limiter) Admit(from net.Conn) *Conn {
	c := &Conn{Conn: from, limiter: l}
	name := sourceOf(c.Conn)
	l.mu.Lock()
	s := l.sources[name]
	if s == nil {
		s = &source{name: name, established: list.New()}
	}
	var evicted *Conn
	if l.size >= l.limit {
		if evicted = l.victimLocked(s); evicted == nil {
			l.mu.Unlock()
			return nil
		}
		l.removeLocked(evicted)
	}
	l.sources[name] = s // again if its last connection was just removed
	s.size++
	l.size++
	c.source, c.at = s, l.pending.PushBack(c)
	l.mu.Unlock()
	if evicted != nil {
		_ = evicted.Conn.Close() // its reader sees the error
	}
	return c
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
		_ = c.Close() // their readers see the error
	}
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
	for range min(maxIdleChecks, most.established.Len()) {
		e := most.established.Front()
		if c := e.Value.(*Conn); !c.active.Swap(false) {
			return c
		}
		most.established.MoveToBack(e)
	}
	if most.size > newcomer.size+1 {
		return most.established.Front().Value.(*Conn)
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
	n, err := c.Conn.Read(p)
	if n > 0 && !c.active.Load() {
		c.active.Store(true)
	}
	return n, err
}

// Write establishes the connection: its caller sent something that has an answer.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.established.Load() {
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

// sourceOf is the caller's IP address, or the whole address if it has none.
func sourceOf(c net.Conn) string {
	if c.RemoteAddr() == nil {
		return ""
	}
	addr := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
