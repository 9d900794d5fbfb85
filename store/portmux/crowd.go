package portmux

import (
	"container/list"
	"net"
	"sync"
	"sync/atomic"
)

// Crowd decides who stays when a port is full. A connection that was never
// answered goes before one that was: a caller that says nothing costs nothing
// to send away, and one that means it is answered within a round trip. Of those
// that were answered the source that holds the most gives one up, one that was
// silent lately if it has any. So strangers cannot keep the port from a node or
// a client by holding connections, only by speaking on them from as many
// sources.
//
// Example: 4,096 places; 4,090 connections that say nothing and 6 of peers. The
// 4,097th connection takes the place of the oldest of the 4,090.
type Crowd struct {
	limit int

	mu      sync.Mutex // guards the rest
	size    int
	strange *list.List         // of *Conn, never answered, oldest first
	sources map[string]*source // of all connections
}

// source is where connections come from: an IP address.
type source struct {
	name    string
	size    int
	settled *list.List // of *Conn, answered; the next to look at first
}

// NewCrowd returns a crowd of at most limit connections, and at least one.
func NewCrowd(limit int) *Crowd {
	return &Crowd{limit: max(limit, 1), strange: list.New(), sources: make(map[string]*source)}
}

// Conn is a connection in a crowd.
type Conn struct {
	net.Conn
	head  []byte // read to find the route, and not given to the reader yet
	crowd *Crowd

	active  atomic.Bool // has read or written since the crowd looked
	settled atomic.Bool // was answered; changes under the crowd's lock

	source *source       // guarded by the crowd
	at     *list.Element // guarded by the crowd; nil: not in it
}

// Admit takes a connection in and closes another for it if the crowd is full;
// nil: there is no place for it. Whoever uses the result closes it.
func (w *Crowd) Admit(from net.Conn) *Conn {
	c := &Conn{Conn: from, crowd: w}
	name := sourceOf(c.Conn)
	w.mu.Lock()
	s := w.sources[name]
	if s == nil {
		s = &source{name: name, settled: list.New()}
	}
	var out *Conn
	if w.size >= w.limit {
		if out = w.weakest(s); out == nil {
			w.mu.Unlock()
			return nil
		}
		w.removeLocked(out)
	}
	w.sources[name] = s // also when the last of it has just left
	s.size++
	w.size++
	c.source, c.at = s, w.strange.PushBack(c)
	w.mu.Unlock()
	if out != nil {
		_ = out.Conn.Close() // its reader notices
	}
	return c
}

// Size is the number of connections.
func (w *Crowd) Size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// CloseAll closes the connections that are in the crowd.
func (w *Crowd) CloseAll() {
	w.mu.Lock()
	var all []*Conn
	for e := w.strange.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*Conn))
	}
	for _, s := range w.sources {
		for e := s.settled.Front(); e != nil; e = e.Next() {
			all = append(all, e.Value.(*Conn))
		}
	}
	w.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // their readers notice
	}
}

// looks bounds how many connections are looked at for one that is silent.
const looks = 32

// weakest is who gives its place to a newcomer of that source; nil: nobody.
func (w *Crowd) weakest(newcomer *source) *Conn {
	if e := w.strange.Front(); e != nil {
		return e.Value.(*Conn)
	}
	most := newcomer
	for _, s := range w.sources {
		if s.size > most.size {
			most = s
		}
	}
	for range min(looks, most.settled.Len()) {
		e := most.settled.Front()
		if c := e.Value.(*Conn); !c.active.Swap(false) {
			return c
		}
		most.settled.MoveToBack(e)
	}
	if most.size > newcomer.size+1 {
		return most.settled.Front().Value.(*Conn)
	}
	return nil
}

func (w *Crowd) removeLocked(c *Conn) {
	if c.at == nil {
		return
	}
	if c.settled.Load() {
		c.source.settled.Remove(c.at)
	} else {
		w.strange.Remove(c.at)
	}
	c.at = nil
	w.size--
	if c.source.size--; c.source.size == 0 {
		delete(w.sources, c.source.name)
	}
}

// settle notes that a connection was answered.
func (w *Crowd) settle(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.at == nil || c.settled.Load() {
		return
	}
	w.strange.Remove(c.at)
	c.settled.Store(true)
	c.at = c.source.settled.PushBack(c)
}

// Read gives back first what was read to find the route.
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

// Write settles the connection: who is answered has said something.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.settled.Load() {
		c.crowd.settle(c)
	}
	if !c.active.Load() {
		c.active.Store(true)
	}
	return c.Conn.Write(p)
}

// Close frees the place.
func (c *Conn) Close() error {
	c.Leave()
	return c.Conn.Close()
}

// Leave frees the place and leaves the connection open.
func (c *Conn) Leave() {
	c.crowd.mu.Lock()
	defer c.crowd.mu.Unlock()
	c.crowd.removeLocked(c)
}

// sourceOf is the caller's IP address, or all of an address that has none.
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
