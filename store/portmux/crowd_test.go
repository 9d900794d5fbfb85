package portmux

import (
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// from is a connection of a source that notes its end.
type from struct {
	net.Conn
	addr   string
	closed bool
}

func (f *from) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: net.ParseIP(f.addr), Port: 1} }
func (f *from) Read(p []byte) (int, error)  { return len(p), nil }
func (f *from) Write(p []byte) (int, error) { return len(p), nil }
func (f *from) Close() error                { f.closed = true; return nil }

// held is what one source has in a crowd.
type held struct {
	ends  []*from
	conns []*Conn
}

func (h *held) gone() (n int) {
	for _, e := range h.ends {
		if e.closed {
			n++
		}
	}
	return n
}

// enter brings connections in, and says how many were let in.
func enter(w *Crowd, addr string, n int, answered bool) (h *held, in int) {
	h = &held{}
	for range n {
		end := &from{addr: addr}
		c := w.Admit(end)
		if c == nil {
			continue
		}
		in++
		h.ends, h.conns = append(h.ends, end), append(h.conns, c)
		if answered {
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

// Who was never answered goes before anyone who was, also of the same source.
func TestStrangersGiveWay(t *testing.T) {
	w := NewCrowd(10)
	kept, _ := enter(w, peer, 3, true)
	strangers, _ := enter(w, peer, 7, false)
	if _, in := enter(w, peer, 3, true); in != 3 {
		t.Errorf("%d of 3 were let in", in)
	}
	for i, e := range strangers.ends {
		if e.closed != (i < 3) {
			t.Errorf("stranger %d: closed %t: not the oldest went", i, e.closed)
		}
	}
	if kept.gone() != 0 || w.Size() != 10 {
		t.Errorf("%d of those that were answered went; %d connections", kept.gone(), w.Size())
	}
}

// A source that holds all places cannot keep another out, whatever it does.
func TestLargestSourceGivesWay(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy %t", busy), func(t *testing.T) {
			w := NewCrowd(10)
			flood, _ := enter(w, other, 10, true)
			speak := func() {
				for _, c := range flood.conns {
					c.active.Store(busy)
				}
			}
			gone := 0
			for range 5 {
				speak()
				h, in := enter(w, peer, 1, true)
				if in != 1 {
					t.Fatal("not let in")
				}
				for range 10 {
					speak()
					enter(w, other, 1, true)
				}
				gone += h.gone()
			}
			if gone != 0 {
				t.Errorf("%d connections of the smaller source went", gone)
			}
		})
	}
}

// Within a source the silent go first; where all speak, the newcomer is refused.
func TestSilentGoFirst(t *testing.T) {
	w := NewCrowd(4)
	h, _ := enter(w, peer, 4, true)
	for i, c := range h.conns {
		c.active.Store(i != 2)
	}
	if _, in := enter(w, peer, 1, true); in != 1 || !h.ends[2].closed || h.gone() != 1 {
		t.Errorf("let in %d; %d went, the silent one %t", in, h.gone(), h.ends[2].closed)
	}
	for range 3 { // looked at once each, they have to speak again
		for _, c := range w.sources[peer].all() {
			_, _ = c.Read(make([]byte, 1))
		}
		if _, in := enter(w, peer, 1, true); in != 0 {
			t.Error("one that speaks went for a newcomer of its own source")
		}
	}
}

func (s *source) all() (conns []*Conn) {
	for e := s.settled.Front(); e != nil; e = e.Next() {
		conns = append(conns, e.Value.(*Conn))
	}
	return conns
}

// What is closed leaves no trace, in whatever order it goes.
func TestCrowdForgets(t *testing.T) {
	w := NewCrowd(10)
	a, _ := enter(w, peer, 4, true)
	b, _ := enter(w, other, 10, false)
	for _, c := range append(a.conns, b.conns...) {
		_ = c.Close()
		_ = c.Close()
		_, _ = c.Write(nil) // settles nothing any more
	}
	if w.Size() != 0 || len(w.sources) != 0 || w.strange.Len() != 0 {
		t.Errorf("%d connections, %d sources, %d strangers", w.Size(), len(w.sources), w.strange.Len())
	}
	if NewCrowd(0).Admit(&from{addr: peer}) == nil {
		t.Error("a crowd without a place")
	}
}

func TestCloseAll(t *testing.T) {
	w := NewCrowd(10)
	a, _ := enter(w, peer, 4, true)
	b, _ := enter(w, other, 3, false)
	w.CloseAll()
	if a.gone() != 4 || b.gone() != 3 || w.Size() != 0 {
		t.Errorf("%d and %d went, %d are left", a.gone(), b.gone(), w.Size())
	}
}

// A full port answers one that speaks, though strangers hold every place.
func TestFullPortAnswers(t *testing.T) {
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
			t.Errorf("the oldest of the silent: %v", err)
		}
		synctest.Wait()
		if n := s.crowd.Size(); n != 2 {
			t.Errorf("%d connections, want the two silent ones", n)
		}
	})
}
