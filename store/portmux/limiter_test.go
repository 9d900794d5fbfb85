package portmux

import (
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// from is a connection of a source that records that it was closed.
type from struct {
	net.Conn
	addr   string
	closed bool
}

func (f *from) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: net.ParseIP(f.addr), Port: 1} }
func (f *from) Read(p []byte) (int, error)  { return len(p), nil }
func (f *from) Write(p []byte) (int, error) { return len(p), nil }
func (f *from) Close() error                { f.closed = true; return nil }

// held is the connections of one source.
type held struct {
	ends  []*from
	conns []*Conn
}

func (h *held) evicted() (n int) {
	for _, e := range h.ends {
		if e.closed {
			n++
		}
	}
	return n
}

// enter opens n connections and returns how many were admitted.
func enter(l *Limiter, addr string, n int, established bool) (h *held, in int) {
	h = &held{}
	for range n {
		end := &from{addr: addr}
		c := l.Admit(end)
		if c == nil {
			continue
		}
		in++
		h.ends, h.conns = append(h.ends, end), append(h.conns, c)
		if established {
			_, _ = c.Write([]byte("x"))
			c.active.Store(false) // long ago
		}
	}
	return h, in
}

const (
	peer  = "10.0.0.1"
	other = "10.0.0.2"
)

// Pending connections are closed before established ones, also within a source.
func TestPendingConnectionsAreClosedFirst(t *testing.T) {
	l := NewLimiter(10)
	kept, _ := enter(l, peer, 3, true)
	pending, _ := enter(l, peer, 7, false)
	if _, in := enter(l, peer, 3, true); in != 3 {
		t.Errorf("%d of 3 were admitted", in)
	}
	for i, e := range pending.ends {
		if e.closed != (i < 3) {
			t.Errorf("pending %d: closed %t: not the oldest first", i, e.closed)
		}
	}
	if kept.evicted() != 0 || l.Size() != 10 {
		t.Errorf("%d established connections were closed; %d are left", kept.evicted(), l.Size())
	}
}

// A source with all the connections cannot keep another source out.
func TestLargestSourceLosesAConnection(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy %t", busy), func(t *testing.T) {
			l := NewLimiter(10)
			flood, _ := enter(l, other, 10, true)
			use := func() {
				for _, c := range flood.conns {
					c.active.Store(busy)
				}
			}
			closed := 0
			for range 5 {
				use()
				h, in := enter(l, peer, 1, true)
				if in != 1 {
					t.Fatal("not admitted")
				}
				for range 10 {
					use()
					enter(l, other, 1, true)
				}
				closed += h.evicted()
			}
			if closed != 0 {
				t.Errorf("%d connections of the smaller source were closed", closed)
			}
		})
	}
}

// Within a source an idle connection is closed; if none is idle, the new one is refused.
func TestIdleConnectionIsClosedFirst(t *testing.T) {
	l := NewLimiter(4)
	h, _ := enter(l, peer, 4, true)
	for i, c := range h.conns {
		c.active.Store(i != 2)
	}
	if _, in := enter(l, peer, 1, true); in != 1 || !h.ends[2].closed || h.evicted() != 1 {
		t.Errorf("admitted %d; closed %d, the idle one %t", in, h.evicted(), h.ends[2].closed)
	}
	for range 3 { // each check clears the flag, so use them again
		for _, c := range l.sources[peer].all() {
			_, _ = c.Read(make([]byte, 1))
		}
		if _, in := enter(l, peer, 1, true); in != 0 {
			t.Error("a connection in use was closed for a new one of its own source")
		}
	}
}

func (s *source) all() (conns []*Conn) {
	for e := s.established.Front(); e != nil; e = e.Next() {
		conns = append(conns, e.Value.(*Conn))
	}
	return conns
}

// Closed connections are removed, in whatever order they are closed.
func TestClosedConnectionsAreRemoved(t *testing.T) {
	l := NewLimiter(10)
	a, _ := enter(l, peer, 4, true)
	b, _ := enter(l, other, 10, false)
	for _, c := range append(a.conns, b.conns...) {
		_ = c.Close()
		_ = c.Close()
		_, _ = c.Write(nil) // does not establish it again
	}
	if l.Size() != 0 || len(l.sources) != 0 || l.pending.Len() != 0 {
		t.Errorf("%d connections, %d sources, %d pending", l.Size(), len(l.sources), l.pending.Len())
	}
	if NewLimiter(0).Admit(&from{addr: peer}) == nil {
		t.Error("a limiter that admits nothing")
	}
}

func TestCloseAll(t *testing.T) {
	l := NewLimiter(10)
	a, _ := enter(l, peer, 4, true)
	b, _ := enter(l, other, 3, false)
	l.CloseAll()
	if a.evicted() != 4 || b.evicted() != 3 || l.Size() != 0 {
		t.Errorf("%d and %d were closed, %d are left", a.evicted(), b.evicted(), l.Size())
	}
}

// At the limit of silent connections a new one is still served.
func TestPortAtItsLimitServesNewConnections(t *testing.T) {
	bubble(t, 3, func(t *testing.T, s *setup) {
		var silent []net.Conn
		for range 3 {
			silent = append(silent, s.dial())
		}
		go send(s.dial(), "Rhello")
		c := accept(t, s.raft)
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		_ = c.Close()
		if _, err := silent[0].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the oldest silent connection: %v", err)
		}
		synctest.Wait()
		if n := s.limiter.Size(); n != 2 {
			t.Errorf("%d connections, want the two silent ones", n)
		}
	})
}
